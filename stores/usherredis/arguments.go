package usherredis

import (
	"encoding/binary"
	"strconv"

	"github.com/usher-go/usher/ratelimit"
)

// arguments are the keys and arguments of a script. They share one string.
type arguments struct {
	text []byte
	ends []int
}

func (a *arguments) end() { a.ends = append(a.ends, len(a.text)) }

func (a *arguments) list() []string {
	text, list, from := string(a.text), make([]string, len(a.ends)), 0
	for i, to := range a.ends {
		list[i] = text[from:to]
		from = to
	}
	return list
}

// key adds the key under which the state of a key of a policy is stored. The digest has a
// fixed length, so no two of these keys are the same.
func (a *arguments) key(tag, part, policy string, digest [16]byte) {
	a.text = append(append(append(a.text, tag...), part...), policy...)
	a.text = append(append(a.text, ':'), digest[:]...)
	a.end()
}

func (a *arguments) word(s string) {
	a.text = append(a.text, s...)
	a.end()
}

func (a *arguments) id(id ratelimit.ID) {
	a.text = binary.BigEndian.AppendUint64(a.text, id.Node)
	a.text = binary.BigEndian.AppendUint64(a.text, id.Seq)
	a.end()
}

func (a *arguments) number(n int64) {
	a.text = strconv.AppendInt(a.text, n, 10)
	a.end()
}

// may adds whether a request may be admitted, as take.lua describes it.
func (a *arguments) may(admitted, peek bool) {
	if peek {
		a.text = append(a.text, 'p')
	}
	if admitted {
		a.text = append(a.text, '1')
	}
	a.end()
}

// how adds how a charge of Take counts, as take.lua describes it.
func (a *arguments) how(c *ratelimit.Charge) {
	if c.Shadow {
		a.text = append(a.text, 's')
	}
	if holds(c) {
		a.text = strconv.AppendInt(a.text, microseconds(c.Lease), 10)
	}
	a.end()
}

// what adds what a charge of Adjust does, as adjust.lua describes it.
func (a *arguments) what(c *ratelimit.Charge) {
	switch {
	case holds(c) && c.EndHold:
		a.text = append(a.text, 'e')
	case holds(c):
		a.text = append(a.text, 'h')
	default:
		a.text = strconv.AppendInt(a.text, c.TakenAt, 10)
	}
	if c.Overdraw && c.Limit.Algorithm() == ratelimit.AlgorithmTokenBucket {
		a.text = append(a.text, 'o')
	}
	a.end()
}

// holds reports whether a charge concerns units that a decision holds.
func holds(c *ratelimit.Charge) bool {
	return c.Hold && c.Limit.Algorithm() != ratelimit.AlgorithmConcurrency
}

// limit adds the text by which a limit is stored and compared.
func (a *arguments) limit(l *ratelimit.Limit) {
	number := func(n int64) { a.text = strconv.AppendInt(append(a.text, ' '), n, 10) }
	switch l.Algorithm() {
	case ratelimit.AlgorithmTokenBucket:
		a.text = append(a.text, 'b')
		number(l.Quota())
		number(microseconds(l.Per()))
		number(l.Burst())
	case ratelimit.AlgorithmRollingWindow:
		a.text = append(a.text, 'r')
		number(l.Quota())
		number(microseconds(l.Per()))
	case ratelimit.AlgorithmCalendarWindow:
		unit, begin := l.Calendar()
		a.text = append(a.text, 'c')
		number(l.Quota())
		number(int64(unit))
		a.text = append(append(a.text, ' '), begin...)
	default:
		a.text = append(a.text, 'p')
		number(l.Quota())
	}
	a.end()
}

// extra adds the windows or the lease, which a server cannot know.
func (a *arguments) extra(c *ratelimit.Charge) {
	switch c.Limit.Algorithm() {
	case ratelimit.AlgorithmCalendarWindow:
		a.number(c.Windows[0].End.UnixMicro())
		a.number(c.Windows[1].End.UnixMicro())
	case ratelimit.AlgorithmConcurrency:
		a.number(microseconds(c.Lease))
		a.end()
	default:
		a.end()
		a.end()
	}
}
