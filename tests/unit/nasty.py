"""Texts that mean something to a shell, to Docker, grub, HCL or YAML."""

ONE_LINE = [
    "plain", "two words", " ends with spaces ", "it's", "''", '"', '"a" "b"', "\\", "\\\\", "a\\", "\\n", "\\'", '\\"', "\\$x", "$", "$x", "${x}", "$$", "$${x}",
    "$${", "$$${x}", "$(id)", "$((1+1))", "`id`", "${x:-y}", "${x:?}", "%", "%{if x}", "%%{x}", "%{", "%s%n", "a;b", "a; reboot", "a && b", "a || b", "a | b", "a > /tmp/x",
    "a < b", "<<EOF", "x <<EOF", "<<'EOF'", "<<-EOF", "EOF", "#", "# syntax=x", "a #b", "!a", "!", "*", "?", "[a]", "[", "]", "[!a]", "{a,b}", "{", "}", "{{ x }}", "{% if %}",
    "~", "~root", "-", "--", "-n", "--flag=x", "--from=scratch", "=", "a=b", "a=b c=d", "a,b", ",", ":", "a: b", "- a", "&", "&a", "*a", "|", ">", "@", "null", "~", "true", "0644",
    "[\"a\", \"b\"]", "RUN x", "if", "fi", "; fi", "then", "done", "function", "menuentry x {", "(hd0)", "ü", "日本語", "\U0001f600", "\u2028x", "\x85x", "\ufeffx", "\u00a0", "\t", "a\tb",
    "\x01", "\x1b[31m", "\x7f", "\x0b", "\x0c", "'$x'", "\"$x\"", "'\"'\"'", "x" * 200, "", " ", "  ",
]  # fmt: skip
