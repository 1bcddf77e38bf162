"""Finding Ray clusters: one module a method, one that verifies what they claim, one that merges.

``run.discover`` runs the methods side by side, ``identify.identify`` works out what stands at one
address. Nothing here imports Ray or a library for HTTP: a whole discovery has to be over before
``import ray`` would be.
"""
