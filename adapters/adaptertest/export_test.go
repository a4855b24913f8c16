package adaptertest

func (r Router) Verify(id string, result error) error { return r.verify(id, result) }

func (r Router) Fault() error { return r.fault() }
