"""A Pulumi provider whose resources are processes of this machine: jobs, servers, and the directory they share.

It runs as a plugin of the project (Pulumi.yaml: plugins), not as a dynamic provider, because those are never told of
Ctrl-C, put a traceback around every error, and pickle their code into the state.
"""
