"""The program that moves file bytes: on the nodes by a Ray job, and on castray's machine.

Only the standard library and Ray, in the syntax of Python 3.8, because it runs under whatever
Python a cluster happens to have. Imports inside the package are relative: on the nodes it is called
``castray_agent`` and lives in memory only.
"""
