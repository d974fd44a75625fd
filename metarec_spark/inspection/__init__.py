"""From a folder of files to a configuration: what they are, which columns mean what, and what a night would make of them."""
