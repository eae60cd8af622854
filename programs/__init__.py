"""What the programs, which alone see the configuration, make of it: the library's arguments."""
