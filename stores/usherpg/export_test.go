package usherpg

import "time"

// SetClock makes the limits of p decide by this clock in place of the server's.
func SetClock(p *Postgres, now func() time.Time) { p.clock = now }
