"""Tables and pictures from run files. Reads what `mal` wrote; imports nothing from it."""
