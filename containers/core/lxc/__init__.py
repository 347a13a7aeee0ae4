"""Moving in from LXC: its configuration read and translated (pure), its root file systems taken over."""
