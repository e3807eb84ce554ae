"""Which masks to look at first: one page that lists them from doubtful to sure, and takes a choice for each."""
