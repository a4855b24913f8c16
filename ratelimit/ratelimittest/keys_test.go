package ratelimittest_test

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/usher-go/usher/ratelimit"
)

var keyMistakes = map[string]mistake{
	"counts all keys of a policy together": {
		"keys and policies are counted apart",
		asked(func(c *ratelimit.Charge) { c.Key = ratelimit.Key{} }).made,
	},
	"folds keys to lower case": {"every text is a key of its own", texts(strings.ToLower)},
	"folds keys as people do": {"every text is a key of its own", texts(func(s string) string {
		return strings.ReplaceAll(s, "\u00df", "ss")
	})},
	"trims keys": {"every text is a key of its own", texts(strings.TrimSpace)},
	"ends keys with NUL": {"every text is a key of its own", texts(func(s string) string {
		before, _, _ := strings.Cut(s, "\x00")
		return before
	})},
	"replaces invalid UTF-8 in keys": {"every text is a key of its own", texts(func(s string) string {
		return strings.ToValidUTF8(s, "\ufffd")
	})},
	"drops invalid UTF-8 from keys": {"every text is a key of its own", texts(func(s string) string {
		return strings.ToValidUTF8(s, "")
	})},
	"unescapes keys": {"every text is a key of its own", texts(func(s string) string {
		if u, err := url.PathUnescape(s); err == nil {
			return u
		}
		return s
	})},
	"counts by what is in braces": {"every text is a key of its own", texts(func(s string) string {
		if _, tag, ok := strings.Cut(s, "{"); ok {
			if tag, _, ok := strings.Cut(tag, "}"); ok && tag != "" {
				return tag
			}
		}
		return s
	})},
	"cuts keys after 64 KiB": {"every text is a key of its own", texts(func(s string) string {
		return s[:min(len(s), 64<<10)]
	})},
	"keeps the end of long keys": {"every text is a key of its own", texts(func(s string) string {
		return s[max(len(s)-255, 0):]
	})},
	"counts an empty text with all requests": {
		"every text is a key of its own",
		asked(func(c *ratelimit.Charge) {
			if c.Key == ratelimit.TextKey("") {
				c.Key = ratelimit.Key{}
			}
		}).made,
	},
	"takes the text form of a key for the key": {
		"every text is a key of its own",
		asked(func(c *ratelimit.Charge) {
			if text := c.Key.String(); strings.Count(text, ":") == 4 {
				c.Key = ratelimit.TextKey(text)
			}
		}).made,
	},
	"counts all addresses together": {
		"every address is a key of its own",
		asked(func(c *ratelimit.Charge) {
			if strings.HasPrefix(c.Key.String(), "0:") {
				c.Key = ratelimit.Key{}
			}
		}).made,
	},
	"counts an IPv6 address by its first half": {
		"every address is a key of its own",
		asked(func(c *ratelimit.Charge) {
			if parts := strings.Split(c.Key.String(), ":"); parts[0] == "0" && parts[1] != "0" {
				c.Key = ratelimit.TextKey(parts[1][:4])
			}
		}).made,
	},
	"counts IPv4 addresses together": {
		"every address is a key of its own",
		asked(func(c *ratelimit.Charge) {
			if strings.HasPrefix(c.Key.String(), "0:0:") {
				c.Key = ratelimit.AddressKey(netip.MustParsePrefix("0.0.0.0/32"))
			}
		}).made,
	},
	"folds policies to lower case": {
		"every policy name is one of its own",
		asked(func(c *ratelimit.Charge) { c.Policy = strings.ToLower(c.Policy) }).made,
	},
	"cuts policies": {
		"every policy name is one of its own",
		asked(func(c *ratelimit.Charge) { c.Policy = c.Policy[:min(len(c.Policy), 40)] }).made,
	},
	"joins the policy and the key": {
		"every policy name is one of its own",
		asked(func(c *ratelimit.Charge) {
			_, text := splitKey(c.Key)
			c.Policy, c.Key = "all", ratelimit.TextKey(c.Policy+text)
		}).made,
	},
	"replaces what is no letter in policies": {
		"every policy name is one of its own",
		asked(func(c *ratelimit.Charge) { c.Policy = strings.NewReplacer(".", "_", "-", "_").Replace(c.Policy) }).made,
	},
}

// splitKey returns the first and the last part of the text form of a key. The origin of an
// address is 0.
func splitKey(k ratelimit.Key) (origin, text string) {
	parts := strings.SplitN(k.String(), ":", 5)
	return parts[0], parts[4]
}

// texts changes the texts of keys, and leaves addresses as they are.
func texts(change func(string) string) func(*ratelimit.Memory) ratelimit.Store {
	return asked(func(c *ratelimit.Charge) {
		if origin, text := splitKey(c.Key); origin != "0" {
			c.Key = ratelimit.TextKey(change(text))
		}
	}).made
}
