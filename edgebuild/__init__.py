"""edgebuild: builds provider images, installer ISO and cluster profile for edge hosts."""
