"""The unsolved file while nobody is there: searched again against new enrolments, ended when its authority ends."""
