package apikey

import (
	"cmp"
	"math"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
)

// limits are the bounds of a [Manager] on the keys of an owner.
type limits struct {
	active, derived, total int

	together bool // keys in their grace count as active ones
}

func newLimits(c *ManagerConfig, faults config.Faults[usher.ConfigError]) limits {
	l := limits{active: cmp.Or(c.MaxActive, 100), derived: cmp.Or(c.MaxDerived, 1000), together: c.CountReplaced}
	l.total = cmp.Or(c.MaxTotal, 100*min(l.active, math.MaxInt/100))
	faults.If(c.MaxActive < 0, "MaxActive", config.NotNegative)
	faults.If(c.MaxDerived < 0, "MaxDerived", config.NotNegative)
	faults.If(c.MaxTotal < 0 || c.MaxTotal > 0 && c.MaxTotal < l.active, "MaxTotal", "must be at least MaxActive")
	return l
}

// issue returns the bounds on a new key.
func (l *limits) issue() Limits {
	if l.together {
		return Limits{Working: l.active, Total: l.total}
	}
	return Limits{Active: l.active, Total: l.total}
}

// rotate returns the bounds on a rotation. A key without a grace makes room for the one
// in its place.
func (l *limits) rotate(grace bool) Limits {
	switch {
	case !grace:
		return Limits{Total: l.total}
	case l.together:
		return Limits{Working: l.active, Total: l.total}
	}
	return Limits{Replaced: l.active, Total: l.total}
}

// derive returns the bounds on a derived key.
func (l *limits) derive() Limits { return Limits{Derived: l.derived, Total: l.total} }
