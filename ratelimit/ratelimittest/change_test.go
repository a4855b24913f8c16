package ratelimittest_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

var changeMistakes = map[string]mistake{
	"counts each limit of a key apart": {
		"a larger limit starts with what was used and no more",
		asked(func(c *ratelimit.Charge) { c.Policy += c.Limit.String() }).made,
	},
	"forgets what was used when the limit changes": {
		"a limit may change from one decision to the next", forgets(1),
	},
	"forgets a longer window when it meets a shorter one": {
		"a limit keeps its count when the key meets another", forgets(1),
	},
	"forgets what was used at the second change": {
		"four limits of a key count together", forgets(2),
	},
	"keeps three limits of a key": {
		"four limits of a key count together", forgets(3),
	},
	"counts each algorithm of a key apart": {
		"four limits of a key count together",
		asked(func(c *ratelimit.Charge) { c.Policy += fmt.Sprint(c.Limit.Algorithm()) }).made,
	},
	"starts another algorithm with all units used": {
		"a larger limit starts with what was used and no more",
		asked(func(c *ratelimit.Charge) {
			if l := c.Limit; l.Algorithm() == ratelimit.AlgorithmCalendarWindow && l.Quota() > 5 {
				c.Limit = ratelimit.RollingWindow(5, 24*time.Hour)
			}
		}).made,
	},
	"refunds under the present limit alone": {
		"a refund counts under every limit of the key", refundsHere,
	},
	"refunds what did not fit under another limit": {
		"a refund counts under every limit of the key", refundsThere,
	},
}

// forgets keeps the use of a key until it has met n limits more.
func forgets(n int) func(*ratelimit.Memory) ratelimit.Store {
	return func(m *ratelimit.Memory) ratelimit.Store {
		limits := make(map[string][]ratelimit.Limit)
		return asked(func(c *ratelimit.Charge) {
			if c.Limit.Algorithm() == ratelimit.AlgorithmConcurrency {
				return
			}
			met := limits[c.Policy]
			if len(met) == 0 || met[len(met)-1] != c.Limit && !slices.Contains(met[len(met)/n*n:], c.Limit) {
				met = append(met, c.Limit)
				limits[c.Policy] = met
			}
			c.Policy += fmt.Sprint("-", (len(met)-1)/n)
		})(m)
	}
}

// refundsHere charges what is refunded again under the limits of other decisions.
func refundsHere(m *ratelimit.Memory) ratelimit.Store {
	refunded := make(map[string]map[ratelimit.Limit]int64)
	s := store{Store: m}
	s.adjust = moved(func(c *ratelimit.Charge) {
		if refunded[c.Policy] == nil {
			refunded[c.Policy] = make(map[ratelimit.Limit]int64)
		}
		refunded[c.Policy][c.Limit] -= min(c.Moved, 0)
	})(m).Adjust
	s.take = results(func(c *ratelimit.Charge) {
		for l, n := range refunded[c.Policy] {
			if l != c.Limit {
				c.Remaining -= n
			}
		}
	})(m).Take
	return s
}

// refundsThere reports all that was refunded under one limit as left under another.
func refundsThere(m *ratelimit.Memory) ratelimit.Store {
	refunded := make(map[string]int64)
	s := store{Store: m}
	s.adjust = moved(func(c *ratelimit.Charge) { refunded[c.Policy] = max(refunded[c.Policy], -c.Moved) })(m).Adjust
	s.take = results(func(c *ratelimit.Charge) {
		if c.Cost == 0 && c.Remaining > 0 && refunded[c.Policy] == 4 && c.Limit.Quota() == 5 {
			c.Remaining = 4
		}
	})(m).Take
	return s
}
