"""Where do tokens go? What probes wrote, by class and with intervals."""
