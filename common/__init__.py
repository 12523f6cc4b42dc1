"""The ground floor of `spk`: what every package stands on."""
