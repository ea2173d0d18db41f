Outcome = dict
def outcome(run): return {"executed": len(run.executed), "history": {k:v for k,v in run.history.items() if k[1]=="evaluate"}}
