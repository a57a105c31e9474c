"""The models as HTTP services on Ray Serve: one ingress, and a deployment for each model."""
