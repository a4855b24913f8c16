package adaptertest

func (r Router) Judge(id string, result error) error { return r.judge(id, result) }

func (r Router) Fault() error { return r.fault() }
