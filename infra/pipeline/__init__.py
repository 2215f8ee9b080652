"""The pipeline as a Pulumi program: settings, stages, and the targets they run on."""
