"""Tables of text in the layouts of instruments and of networks of observation."""
