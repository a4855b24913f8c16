package ratelimittest_test

import (
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var overdrawMistakes = map[string]mistake{
	"overdraws nothing": {
		"an overdrawn bucket admits nothing until its debt is earned",
		askedTo(nil, func(c *ratelimit.Charge) { c.Overdraw = false }).made,
	},
	"overdraws once": {
		"an overdrawn bucket admits nothing until its debt is earned",
		askedTo(nil, func(c *ratelimit.Charge) { c.Overdraw = c.Overdraw && c.Cost < 20 }).made,
	},
	"reports the Wait of an empty bucket for a debt": {
		"an overdrawn bucket admits nothing until its debt is earned",
		results(func(c *ratelimit.Charge) { c.Wait = min(c.Wait, 1000*time.Hour) }).made,
	},
	"reports the Reset of a unit for a debt": {
		"an overdrawn bucket admits nothing until its debt is earned",
		results(func(c *ratelimit.Charge) { c.Reset = min(c.Reset, 200*time.Hour) }).made,
	},
	"reports a debt as a negative number of units": {
		"an overdrawn bucket admits nothing until its debt is earned",
		results(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket && c.Reset > 200*time.Hour {
				c.Remaining = -int64(c.Reset / (200 * time.Hour))
			}
		}).made,
	},
	"refunds no debt": {
		"an overdrawn bucket admits nothing until its debt is earned",
		askedTo(nil, func(c *ratelimit.Charge) { c.Cost = max(c.Cost, -5) }).made,
	},
	"reports that other limits were overdrawn": {
		"only an adjustment of a token bucket overdraws",
		moved(func(c *ratelimit.Charge) {
			if c.Overdraw {
				c.Moved = c.Cost
			}
		}).made,
	},
	"overdraws in Take": {
		"only an adjustment of a token bucket overdraws",
		results(func(c *ratelimit.Charge) { c.Violated = c.Violated && !c.Overdraw }).made,
	},
	"overdraws the present limit alone": {
		"other limits of an overdrawn key are charged as far as it fits",
		func(m *ratelimit.Memory) ratelimit.Store {
			return moved(func(c *ratelimit.Charge) {
				if c.Overdraw && c.Cost > 0 {
					c.Moved = c.Cost
				}
			})(askedTo(nil, func(c *ratelimit.Charge) { c.Overdraw = false })(m))
		},
	},
	"overdraws without a bound": {
		"a debt is bounded",
		moved(func(c *ratelimit.Charge) {
			if c.Overdraw {
				c.Moved = c.Cost
			}
		}).made,
	},
	"bounds a debt by the burst": {
		"a debt is bounded",
		askedTo(nil, func(c *ratelimit.Charge) { c.Cost = min(c.Cost, c.Limit.Burst()) }).made,
	},
}
