"""What the scripts that measure transfers share: runs of castray, rivals, and figures."""
