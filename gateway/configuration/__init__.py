"""Every setting, and where its value comes from: flags, variables, a file."""
