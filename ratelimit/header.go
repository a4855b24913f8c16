package ratelimit

import (
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/delay"
)

// Headers are the header fields that describe the limits to clients. The standard ones
// are RateLimit-Policy and RateLimit of the IETF draft
// (draft-ietf-httpapi-ratelimit-headers-11), which name every policy that is not
// hidden. The others are X-RateLimit-Limit, -Remaining and -Reset, which describe the
// policy with the least left, concurrency limits excepted.
//
// All times are rounded up to whole seconds, so a client that obeys them is not refused
// again. A client that spreads what is left (r) over the effective window (t) stays within
// the average rate of each policy. So while anything is left, t may be later than the end of
// a window: if half of a month's quota is left on its last day, t is half a month.
// X-RateLimit-Reset is the time until more is left, as [Usage].Reset is. Of a [TokenBucket]
// whose burst is not its quota, RateLimit-Policy has the burst as the parameter usher-burst.
//
// RateLimit-Policy and RateLimit are lists: those that a handler adds, such as a
// [net/http/httputil.ReverseProxy] in front of a server with limits of its own, join those
// of the limiter. X-RateLimit fields would be there twice, with different values; the
// example shows how to remove those of the other server.
type Headers uint8

// The choices of header fields.
const (
	StandardHeaders         Headers = iota // RateLimit-Policy and RateLimit
	EpochHeaders                           // X-RateLimit-*, reset in seconds since 1970
	DeltaHeaders                           // X-RateLimit-*, reset in seconds from now
	StandardAndEpochHeaders                // both
	StandardAndDeltaHeaders                // both
	NoHeaders                              // none
)

func (h Headers) standard() bool {
	return h == StandardHeaders || h == StandardAndEpochHeaders || h == StandardAndDeltaHeaders
}

func (h Headers) epoch() bool { return h == EpochHeaders || h == StandardAndEpochHeaders }

// setHeader sets the fields with two allocations: one for all text, and one for the
// slices of values. Each slice belongs to this response alone and has no spare capacity.
// Retry-After is set here only to share these allocations: usher.Fail would set it as
// well.
func (l *Limiter) setHeader(h http.Header, d *decision, refusal *usher.Error) {
	style := l.config.Headers
	if style == NoHeaders || len(d.Charges) == 0 {
		return
	}
	// For decisions over all policies, RateLimit-Policy was computed in advance.
	usual := l.fixed && len(d.charged) == len(l.policies)
	b := d.text[:0]
	var ends [6]int
	n := 0
	end := func() { ends[n] = len(b); n++ }
	if style.standard() {
		if !usual {
			b = appendPolicies(b, d)
		}
		end()
		b = appendStates(b, d)
		end()
	}
	legacy := -1
	if style != StandardHeaders {
		if legacy = tightest(d); legacy >= 0 {
			c := &d.Charges[legacy]
			b = strconv.AppendInt(b, c.Limit.quota, 10)
			end()
			b = strconv.AppendInt(b, c.Remaining, 10)
			end()
			b = appendReset(b, c, style)
			end()
		}
	}
	retry := refusal != nil && refusal.RetryAfter > 0
	if retry {
		b = strconv.AppendInt(b, delay.Seconds(refusal.RetryAfter), 10)
		end()
	}
	d.text = b
	text := string(b)
	values := make([]string, n)
	start := 0
	for i := range n {
		values[i] = text[start:ends[i]]
		start = ends[i]
	}
	if style.standard() && usual {
		values[0] = l.listed
	}
	next := func() []string {
		v := values[:1:1]
		values = values[1:]
		return v
	}
	if style.standard() {
		setField(h, "Ratelimit-Policy", next())
		setField(h, "Ratelimit", next())
	}
	if legacy >= 0 {
		limit, remaining, reset := next(), next(), next()
		if !looser(h, &d.Charges[legacy]) {
			h["X-Ratelimit-Limit"], h["X-Ratelimit-Remaining"] = limit, remaining
			if reset[0] != "" {
				h["X-Ratelimit-Reset"] = reset
			} else {
				delete(h, "X-Ratelimit-Reset")
			}
		}
	}
	if retry {
		h["Retry-After"] = next()
	}
}

// looser reports whether the fields of an outer limiter describe a policy with less left
// than c.
func looser(h http.Header, c *Charge) bool {
	outer := h["X-Ratelimit-Remaining"]
	if len(outer) == 0 || c.Violated {
		return false
	}
	remaining, err := strconv.ParseInt(outer[0], 10, 64)
	return err == nil && remaining < c.Remaining
}

// setField sets a list field, or adds to the items of an outer limiter.
func setField(h http.Header, name string, value []string) {
	if value[0] == "" {
		return
	}
	if outer := h[name]; len(outer) > 0 {
		value = slices.Concat(outer, value)
	}
	h[name] = value
}

// appendPolicies appends RateLimit-Policy: the policies that are not hidden.
func appendPolicies(b []byte, d *decision) []byte {
	start := len(b)
	for i, p := range d.charged {
		if p.Hidden {
			continue
		}
		if len(b) > start {
			b = append(b, ", "...)
		}
		if c := &d.Charges[i]; c.Limit == p.Limit {
			b = append(b, p.item...)
		} else {
			b = p.appendItem(b, &c.Limit)
		}
	}
	return b
}

// listed returns RateLimit-Policy for policies under their usual limits.
func listed(policies []*policy) string {
	var items []string
	for _, p := range policies {
		if !p.Hidden {
			items = append(items, p.item)
		}
	}
	return strings.Join(items, ", ")
}

// appendStates appends RateLimit: what is left under each policy that is not hidden, and
// for how long.
func appendStates(b []byte, d *decision) []byte {
	start := len(b)
	for i, p := range d.charged {
		if p.Hidden {
			continue
		}
		if len(b) > start {
			b = append(b, ", "...)
		}
		c := &d.Charges[i]
		b = append(b, '"')
		b = append(b, p.Name...)
		b = append(b, `";r=`...)
		b = strconv.AppendInt(b, c.Remaining, 10)
		if t := c.window(); t > 0 {
			b = append(b, ";t="...)
			b = strconv.AppendInt(b, t, 10)
		}
	}
	return b
}

// window returns the effective window in seconds: the time within which the client should
// use no more than what is left, or 0 if there is none. It is never so short that a client
// that spreads what is left over it would exceed the average rate of the limit. If nothing
// is left for the request, it is the wait.
func (c *Charge) window() int64 {
	t := delay.Seconds(c.effective())
	quota, per := uint64(c.Limit.quota), c.Limit.Per()
	if t == 0 || c.Violated || c.Remaining <= 0 || c.Remaining <= c.Limit.quota && per <= time.Second {
		return t
	}
	hi, lo := bits.Mul64(uint64(c.Remaining), uint64(per))
	if hi >= quota {
		return t // more is left than any limit has
	}
	spread, rest := bits.Div64(hi, lo, quota)
	if rest > 0 {
		spread++
	}
	return max(t, delay.Seconds(time.Duration(spread)))
}

// effective returns the time after which more is left than now: enough for the request,
// if it was refused.
func (c *Charge) effective() time.Duration {
	if c.Violated && c.Wait > 0 {
		return c.Wait
	}
	return c.Reset
}

// tightest returns the index of the charge that limits the client first, among those of
// policies that are not hidden, or -1.
func tightest(d *decision) int {
	best := -1
	for i, p := range d.charged {
		c := &d.Charges[i]
		if p.Hidden || c.Limit.algorithm == AlgorithmConcurrency {
			continue
		}
		if best < 0 || tighter(c, &d.Charges[best]) {
			best = i
		}
	}
	return best
}

func tighter(a, b *Charge) bool {
	switch {
	case a.Violated != b.Violated:
		return a.Violated
	case a.Remaining != b.Remaining:
		return a.Remaining < b.Remaining
	case (a.Limit.quota == 0) != (b.Limit.quota == 0):
		return a.Limit.quota == 0
	default:
		return a.effective() > b.effective()
	}
}

// appendReset appends X-RateLimit-Reset, or nothing where no wait helps.
func appendReset(b []byte, c *Charge, style Headers) []byte {
	if c.Limit.quota == 0 {
		return b
	}
	if !style.epoch() {
		return strconv.AppendInt(b, delay.Seconds(c.effective()), 10)
	}
	at := time.Now().Add(c.effective())
	if at.Nanosecond() > 0 {
		at = at.Add(time.Second)
	}
	return strconv.AppendInt(b, at.Unix(), 10)
}
