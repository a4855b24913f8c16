package usherredis

import "time"

// SetClock sets the clock by which a store of this package decides, in place of that of its
// server.
func SetClock(s any, now func() time.Time) {
	c := func() int64 { return now().UnixMicro() }
	switch s := s.(type) {
	case *limits:
		s.clock = c
	case *records:
		s.clock = c
	}
}
