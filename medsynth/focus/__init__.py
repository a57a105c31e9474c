"""The focus network: how far out of focus an image is, densely, learnt from semi-synthetic tiles alone."""
