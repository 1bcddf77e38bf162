"""Why a cluster is not found or does not connect: checks that look and change nothing."""
