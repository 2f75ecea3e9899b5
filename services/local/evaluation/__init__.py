"""How accurate the running model is: a 1:N evaluation on a labelled set, with intervals, and the evidence it leaves."""
