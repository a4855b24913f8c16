package usherpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/ratelimit"
)

// limits is the store of rate limits. Its calls are implemented in
// migrations/0010_holds.sql; each is one statement.
type limits struct {
	store
	pg *Postgres

	take, adjust, renew, reset string // statements
}

func newLimits(p *Postgres) *limits {
	// The casts fix the types, even where the pool sends texts.
	const charges = "$1::bigint, $2::bigint, $3::bigint, $4::text[], $5::bytea[], " +
		"$6::smallint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], "
	return &limits{
		store: newStore(p.open), pg: p,
		take: "SELECT admitted, called_at, violated, remaining, resets, waits FROM " + p.function("take_v2") +
			"(" + charges + "$12::bigint[], $13::boolean[], $14::bigint[], $15::bigint[], $16::bigint[], $17::boolean[], $18::boolean)",
		adjust: "SELECT " + p.function("adjust_v2") +
			"(" + charges + "$12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], " +
			"$17::boolean[], $18::boolean[], $19::boolean[])",
		renew: "SELECT lost FROM " + p.function("renew_places_v2") +
			"($1::bigint, $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint) AS lost",
		reset: "SELECT " + p.function("reset_limits_v1") + "($1::text[], $2::bytea[])",
	}
}

// The bounds of a call.
const (
	maxCharges = 16
	maxPlaces  = 1000
	// maxCost is far above every quota, and far from overflow.
	maxCost = 1 << 50
)

var (
	errID       = errors.New("usherpg: a decision without an ID")
	errTwice    = errors.New("usherpg: a policy occurs twice in one decision")
	errMany     = fmt.Errorf("usherpg: more than %d policies in one decision", maxCharges)
	errCounters = fmt.Errorf("usherpg: more than %d counters in one call", ratelimit.MaxRenew)
	errPlaces   = fmt.Errorf("usherpg: more than %d places in one call", maxPlaces)
	errReply    = &failure{text: "the reply of PostgreSQL belongs to another call", kind: usher.ErrCorrupt}
)

// charges are the arguments of a decision, by column: the functions take arrays.
type charges struct {
	order                          []*ratelimit.Charge // by policy
	policies, zones                []string
	keys                           [][]byte
	algorithms                     []int16
	quotas, bursts, periods, costs []int64
	ends, nextEnds                 []int64
}

// chargesOf returns the arguments for d. All callers sort by policy, so that no two
// decisions wait for each other's rows.
func chargesOf(d *ratelimit.Decision) (*charges, error) {
	n := len(d.Charges)
	switch {
	case d.ID == (ratelimit.ID{}):
		return nil, errID
	case n > maxCharges:
		return nil, errMany
	}
	c := &charges{
		order: make([]*ratelimit.Charge, n), policies: make([]string, n), zones: make([]string, n),
		keys: make([][]byte, n), algorithms: make([]int16, n),
	}
	columns(n, &c.quotas, &c.bursts, &c.periods, &c.costs, &c.ends, &c.nextEnds)
	for i := range d.Charges {
		c.order[i] = &d.Charges[i]
	}
	slices.SortFunc(c.order, func(a, b *ratelimit.Charge) int { return cmp.Compare(a.Policy, b.Policy) })
	for i, x := range c.order {
		if i > 0 && c.order[i-1].Policy == x.Policy {
			return nil, errTwice
		}
		digest, l := x.Key.Digest(), &x.Limit
		c.policies[i], c.keys[i], c.algorithms[i] = x.Policy, digest[:], int16(l.Algorithm())
		c.quotas[i], c.bursts[i], c.periods[i] = l.Quota(), l.Burst(), l.Per().Microseconds()
		if l.Algorithm() == ratelimit.AlgorithmCalendarWindow {
			unit, begin := l.Calendar()
			c.periods[i], c.zones[i] = int64(unit), begin
			c.ends[i], c.nextEnds[i] = x.Windows[0].End.UnixMicro(), x.Windows[1].End.UnixMicro()
		}
		c.costs[i] = max(min(x.Cost, maxCost), -maxCost)
	}
	return c, nil
}

// columns makes columns of n numbers.
func columns(n int, all ...*[]int64) {
	numbers := make([]int64, n*len(all))
	for _, column := range all {
		*column, numbers = numbers[:n:n], numbers[n:]
	}
}

// Take implements [ratelimit.Store].
func (s *limits) Take(ctx context.Context, d *ratelimit.Decision) error {
	c, err := chargesOf(d)
	if err != nil {
		return err
	}
	if len(c.order) == 0 {
		d.Admitted = true
		return s.closed()
	}
	n := len(c.order)
	var minima, leases []int64
	columns(n, &minima, &leases)
	shadows, holds := make([]bool, n), make([]bool, n)
	for i, x := range c.order {
		minima[i], shadows[i], leases[i] = min(x.MinRemaining, maxCost), x.Shadow, x.Lease.Microseconds()
		holds[i] = x.Hold
	}
	var admitted bool
	var at int64
	var violated []bool
	var remaining, resets, waits []int64
	err = s.call(ctx, "take", func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, s.take, int64(d.ID.Node), int64(d.ID.Seq), s.pg.now(),
			c.policies, c.keys, c.algorithms, c.quotas, c.bursts, c.periods, c.zones,
			c.costs, minima, shadows, c.ends, c.nextEnds, leases, holds, d.Peek).
			Scan(&admitted, &at, &violated, &remaining, &resets, &waits)
	})
	switch {
	case err != nil:
		return err
	case len(violated) != n || len(remaining) != n || len(resets) != n || len(waits) != n:
		return errReply
	}
	d.Admitted = admitted
	for i, x := range c.order {
		x.Violated, x.Remaining, x.Reset = violated[i], remaining[i], time.Duration(resets[i])*time.Microsecond
		if x.Wait = time.Duration(waits[i]) * time.Microsecond; waits[i] < 0 {
			x.Wait = -1
		}
		x.TakenBy, x.TakenAt = d.ID, at
	}
	return nil
}

// Adjust implements [ratelimit.Store].
func (s *limits) Adjust(ctx context.Context, d *ratelimit.Decision) error {
	c, err := chargesOf(d)
	if err != nil {
		return err
	}
	if len(c.order) == 0 {
		return s.closed()
	}
	var nodes, seqs, at, moved []int64
	columns(len(c.order), &nodes, &seqs, &at)
	n := len(c.order)
	overdraws, holds, ends := make([]bool, n), make([]bool, n), make([]bool, n)
	for i, x := range c.order {
		nodes[i], seqs[i], at[i] = int64(x.TakenBy.Node), int64(x.TakenBy.Seq), x.TakenAt
		overdraws[i], holds[i], ends[i] = x.Overdraw, x.Hold, x.EndHold
	}
	err = s.call(ctx, "adjust", func(ctx context.Context) error {
		return s.pg.pool.QueryRow(ctx, s.adjust, int64(d.ID.Node), int64(d.ID.Seq), s.pg.now(),
			c.policies, c.keys, c.algorithms, c.quotas, c.bursts, c.periods, c.zones,
			c.costs, nodes, seqs, at, c.ends, c.nextEnds, overdraws, holds, ends).
			Scan(&moved)
	})
	switch {
	case err != nil:
		return err
	case len(moved) != len(c.order):
		return errReply
	}
	for i, x := range c.order {
		x.Moved = moved[i]
	}
	return nil
}

// Reset implements [ratelimit.Store].
func (s *limits) Reset(ctx context.Context, counters []ratelimit.Counter) error {
	switch {
	case len(counters) > ratelimit.MaxRenew:
		return errCounters
	case len(counters) == 0:
		return s.closed()
	}
	policies, keys := make([]string, len(counters)), make([][]byte, len(counters))
	for i := range counters {
		digest := counters[i].Key.Digest()
		policies[i], keys[i] = counters[i].Policy, digest[:]
	}
	return s.call(ctx, "reset", func(ctx context.Context) error {
		_, err := s.pg.pool.Exec(ctx, s.reset, policies, keys)
		return err
	})
}

// Renew implements [ratelimit.Store].
func (s *limits) Renew(ctx context.Context, places []ratelimit.Place, lease time.Duration) (lost []ratelimit.Place, err error) {
	switch {
	case len(places) > maxPlaces:
		return nil, errPlaces
	case len(places) == 0:
		return nil, s.closed()
	}
	policies, keys := make([]string, len(places)), make([][]byte, len(places))
	var nodes, seqs []int64
	columns(len(places), &nodes, &seqs)
	for i := range places {
		p := &places[i]
		digest := p.Key.Digest()
		policies[i], keys[i] = p.Policy, digest[:]
		nodes[i], seqs[i] = int64(p.TakenBy.Node), int64(p.TakenBy.Seq)
	}
	err = s.call(ctx, "renew places", func(ctx context.Context) error {
		lost = lost[:0]
		rows, err := s.pg.pool.Query(ctx, s.renew, s.pg.now(), policies, keys, nodes, seqs, lease.Microseconds())
		if err != nil {
			return err
		}
		var i int
		_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
			if i < 1 || i > len(places) {
				return errReply
			}
			lost = append(lost, places[i-1])
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
}
