"""The composition root: settings, assembly, application, command line."""
