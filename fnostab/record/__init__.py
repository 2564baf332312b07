"""Records of trials on disk: write, read, judge and tabulate them."""
