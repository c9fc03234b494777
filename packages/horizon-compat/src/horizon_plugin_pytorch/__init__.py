"""The documented module paths of horizon_plugin_pytorch, served by the bpu packages."""
