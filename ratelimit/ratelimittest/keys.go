package ratelimittest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/ratelimit"
)

func (s suite) apart(t *testing.T) {
	each(t, limits(), func(t *testing.T, c ratelimit.Charge) {
		other := c
		other.Key = ratelimit.TextKey("other")
		s.fill(t, c)
		s.wantLeft(t, c, 0)
		s.wantLeft(t, other, 5)
		s.wantLeft(t, charge(c.Limit), 5)
	})
}

// texts are the keys that a client may send where a policy counts by something that the
// client chooses.
func texts() map[string]string {
	long := strings.Repeat("k", 64<<10)
	return map[string]string{
		"no text":                       "",
		"a letter":                      "a",
		"the letter in upper case":      "A",
		"the letter twice":              "aa",
		"the letter and a blank":        "a ",
		"a blank and the letter":        " a",
		"the letter and NUL":            "a\x00",
		"NUL and the letter":            "\x00a",
		"NUL":                           "\x00",
		"NUL twice":                     "\x00\x00",
		"a brace":                       "{",
		"braces":                        "{}",
		"the letter in braces":          "{a}",
		"the letter in braces, after b": "b{a}",
		"the letter in braces, after c": "c{a}",
		"a colon":                       ":",
		"a percent sign":                "%",
		"a percent sign, escaped":       "%25",
		"a backslash":                   `\`,
		"a backslash, escaped":          `\\`,
		"quotes":                        `'"`,
		"a line break":                  "\r\n",
		"a composed letter":             "\u00e9",
		"the letter and its accent":     "e\u0301",
		"a sharp s":                     "\u00df",
		"what a sharp s is folded to":   "ss",
		"invalid UTF-8":                 "\xff",
		"other invalid UTF-8":           "\xfe",
		"what replaces invalid UTF-8":   "\ufffd",
		"half a letter":                 "\xc3",
		"64 KiB":                        long,
		"64 KiB and a letter":           long + "a",
		"64 KiB and another":            long + "b",
		"64 KiB but for the first":      "a" + long[1:],
		"64 KiB but for the last":       long[1:] + "a",
		"64 KiB but for the middle":     long[:32<<10] + "a" + long[32<<10+1:],
	}
}

func (s suite) texts(t *testing.T) {
	c := charge(ratelimit.RollingWindow(5, time.Hour))
	for name, text := range texts() {
		c.Key = ratelimit.TextKey(text)
		s.ownCounter(t, name, c)
	}
	// A text is never the key that all requests share, even if it reads like that key.
	c.Key = ratelimit.Key{}
	s.ownCounter(t, "the zero Key", c)
	for name, k := range map[string]ratelimit.Key{
		"the text form of the zero Key":   {},
		"the text form of a text":         ratelimit.TextKey("a"),
		"the text form of a text form":    ratelimit.TextKey(ratelimit.TextKey("a").String()),
		"the text form of an address key": ratelimit.AddressKey(netip.MustParsePrefix("192.0.2.1/32")),
	} {
		c.Key = ratelimit.TextKey(k.String())
		s.ownCounter(t, name, c)
	}
	// Places of one text are not places of another either.
	c = charge(ratelimit.Concurrency(5))
	for name, text := range texts() {
		c.Key = ratelimit.TextKey(text)
		s.ownCounter(t, "places of "+name, c)
	}
}

// ownCounter takes all units of a key, which must be new.
func (s suite) ownCounter(t *testing.T, name string, c ratelimit.Charge) {
	t.Helper()
	c.Cost = 5
	if d := s.take(t, c); !d.Admitted {
		t.Fatalf("%s: %d of 5 are left before the first request", name, d.Charges[0].Remaining)
	}
	c.Cost = 1
	if s.take(t, c).Admitted {
		t.Fatalf("%s: what was taken is not counted", name)
	}
}

func (s suite) addresses(t *testing.T) {
	c := charge(ratelimit.RollingWindow(5, time.Hour))
	for _, block := range []string{
		"192.0.2.1/32", "192.0.2.2/32", "192.0.3.1/32", "192.1.2.1/32", "193.0.2.1/32", "0.0.0.1/32",
		"2001:db8::/64", "2001:db8:0:1::/64", "2001:db8:1::/64", "2001:db9::/64", "::1/128", "::2/128",
	} {
		c.Key = ratelimit.AddressKey(netip.MustParsePrefix(block))
		s.ownCounter(t, block, c)
		c.Key = ratelimit.TextKey(block)
		s.ownCounter(t, "the text "+block, c)
	}
	c.Key = ratelimit.AddressKey(netip.MustParsePrefix("192.0.2.1/32"))
	s.wantLeft(t, c, 0)
}

func (s suite) policies(t *testing.T) {
	base := charge(ratelimit.RollingWindow(5, time.Hour))
	for _, name := range []string{"a", "A", "a.", "a.b", "a-b", "a_b", "aa", strings.Repeat("a", 30), strings.Repeat("a", 29) + "b"} {
		c := base
		c.Policy = base.Policy + name
		s.ownCounter(t, fmt.Sprintf("the policy %q", name), c)
		c = under(c, ratelimit.Concurrency(5))
		s.ownCounter(t, fmt.Sprintf("places of the policy %q", name), c)
	}
	// The end of the name of a policy is not the beginning of a key.
	for _, split := range [][2]string{{"x", "yz"}, {"xy", "z"}, {"xyz", ""}} {
		c := base
		c.Policy, c.Key = base.Policy+split[0], ratelimit.TextKey(split[1])
		s.ownCounter(t, fmt.Sprintf("the policy %q with the key %q", split[0], split[1]), c)
	}
}
