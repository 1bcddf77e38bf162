"""What runs on the nodes: the standard library and Ray only, Python 3.8 and newer."""
