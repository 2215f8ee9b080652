"""What the Kubernetes target is made of, one component a module."""
