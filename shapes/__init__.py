"""The world of the bundled base model, and the scripts that train every bundled weight."""
