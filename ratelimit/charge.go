package ratelimit

// need returns how many units must be left for the charge to fit.
func (c *Charge) need() int64 { return max(c.Cost, c.MinRemaining) }

// check sets the results of the charge. If it only peeks, it changes nothing that another
// call could notice. The part of the table is locked.
func (c *Charge) check(now instant, peek bool) {
	c.TakenAt = now.n
	if c.Limit.quota == 0 {
		c.refuse()
		return
	}
	if c.Limit.algorithm == AlgorithmConcurrency {
		p := c.part.placesOf(c, now)
		used := p.used()
		c.Violated = c.need() > 0 && used+c.need() > c.Limit.quota
		c.Remaining, c.Reset, c.Wait = max(c.Limit.quota-used, 0), 0, 0
		if c.need() > c.Limit.quota {
			c.Wait = never
		}
		return
	}
	var res result
	if peek {
		res = c.table.copyOf(c, now).check(&c.Limit, now, c.need())
	} else {
		c.slot = c.table.slot(c, now)
		res = c.slot.check(&c.Limit, now, c.need())
	}
	c.Violated, c.Remaining, c.Reset, c.Wait = !res.ok, res.remaining, res.reset, res.wait
	if len(c.part.places) > 0 {
		c.Remaining = max(c.Remaining-c.part.reserved(c, now), 0)
		c.Violated = c.Violated || c.need() > c.Remaining
	}
}

// refuse sets the results of a limit that admits nothing. The entry of the key stays as
// it is until the key has a limit again.
func (c *Charge) refuse() {
	c.Violated = c.need() > 0 && c.Limit.algorithm != AlgorithmUnlimited
	c.Remaining, c.Reset, c.Wait = 0, 0, 0
	if c.Violated {
		c.Wait = never
	}
}

// take charges a charge for which check has found no violation.
func (c *Charge) take(now instant) {
	if c.Limit.quota == 0 {
		return
	}
	c.Remaining = max(c.Remaining-c.Cost, 0)
	if c.Limit.algorithm == AlgorithmConcurrency {
		c.part.occupy(c, c.part.places[c.Key], c.TakenBy, c.Cost, now)
		return
	}
	if c.Hold {
		c.part.hold(c, c.TakenBy, c.Cost, now)
		return
	}
	c.slot.take(now, c.Cost)
	if c.Reset == 0 && c.Cost > 0 {
		// Nothing was in use before, so check has set no time.
		c.Reset = c.slot.firstReset()
	}
}

func (c *Charge) adjust(now instant) {
	c.Moved = 0
	switch {
	case c.Limit.quota == 0:
	case c.Limit.algorithm == AlgorithmConcurrency:
		c.Moved = c.part.adjustPlaces(c, c.Cost, now)
	default:
		c.Moved = c.move(now)
	}
}

// move adjusts what the key of c has used, or holds, and returns how many units it has
// moved.
func (c *Charge) move(now instant) int64 {
	s := c.table.slot(c, now)
	if !c.Hold {
		return s.adjust(now, c.TakenAt, c.fit(s, now, c.Cost), c.overdraws())
	}
	own := c.part.reservedBy(c, now)
	if c.EndHold {
		c.part.hold(c, c.TakenBy, -own, now)
		return s.adjust(now, now.n, c.fit(s, now, max(c.Cost, 0)), c.overdraws())
	}
	fits := c.fit(s, now, c.Cost)
	if own == 0 {
		return 0
	}
	moved := max(fits, -own)
	c.part.hold(c, c.TakenBy, moved, now)
	return moved
}

// overdraws reports whether an adjustment of c charges more than is left.
func (c *Charge) overdraws() bool {
	return c.Overdraw && (!c.Hold || c.EndHold) && c.Limit.algorithm == AlgorithmTokenBucket
}

// fit returns cost, or as many units as are left besides those that the key holds.
func (c *Charge) fit(s *slot, now instant, cost int64) int64 {
	reserved := c.part.reserved(c, now)
	if c.overdraws() || reserved == 0 && !c.Hold {
		return cost // adjust finds out what is left
	}
	left := s.check(&s.entry.limit, now, 0).remaining // which begins a window
	return min(cost, max(left-reserved, 0))
}
