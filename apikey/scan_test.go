package apikey_test

import (
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/apikey"
)

// A scanned is a format with the environments of its keys.
type scanned struct {
	scannable
	environments []string
}

type scannable interface {
	apikey.Format
	Regexp() string
}

var scannedFormats = []scanned{
	{apikey.Native{Prefix: "shop"}, []string{""}},
	{apikey.Native{Prefix: "shop_1", Environments: []string{"live", "li", "live_2"}}, []string{"live", "li", "live_2"}},
	{apikey.Opaque{Prefix: "shop"}, []string{""}},
	{apikey.Opaque{Prefix: "shop", Environments: []string{"live", "te_st"}, Length: 24}, []string{"live", "te_st"}},
	{apikey.Opaque{Prefix: "s_", Length: 128}, []string{""}},
	{apikey.Split{Prefix: "shop"}, []string{""}},
	{apikey.Split{Prefix: "s", Environments: []string{"a", "a_a"}}, []string{"a", "a_a"}},
}

// withChecksum returns text with the checksum that a Native key with this body has.
func withChecksum(text string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	start := len(text) - 6
	crc := crc32.ChecksumIEEE([]byte(text[start-43 : start]))
	sum := make([]byte, 6)
	for i := range sum {
		sum[5-i] = alphabet[crc%62]
		crc /= 62
	}
	return text[:start] + string(sum)
}

func TestScannersFindKeys(t *testing.T) {
	for _, f := range scannedFormats {
		// What gitleaks requires of a rule: RE2, in a TOML string between three
		// apostrophes, and the secret in the first group.
		expression := f.Regexp()
		if strings.Contains(expression, "'") {
			t.Errorf("%s cannot be written in a rule", expression)
		}
		re := regexp.MustCompile(expression)
		if n := re.NumSubexp(); n != 1 {
			t.Errorf("%s has %d groups, want 1", expression, n)
		}
		for _, environment := range f.environments {
			key := generate(t, f, environment)
			other := generate(t, f, environment)
			for where, text := range map[string]string{
				"alone":              "%s",
				"in Go":              "const key = \"%s\"",
				"in a raw string":    "const key = `%s`",
				"in Python":          "key='%s'",
				"in JSON":            `{"key": "%s"}`,
				"in JSON in JSON":    `"{\"key\":\"%s\"}"`,
				"in YAML":            "key: %s\nother: 1",
				"in the environment": "API_KEY=%s\n",
				"in a URL":           "https://api.example/?key=%s&a=b",
				"as a user name":     "https://%s:@api.example/",
				"in a field":         "X-API-Key: %s\r\n",
				"in CSV":             "1,%s,2",
				"in XML":             "<key>%s</key>",
				"in a sentence":      "My key is %s. Do not share it.",
				"behind a dash":      "key-%s",
			} {
				found := re.FindStringSubmatch(fmt.Sprintf(text, key))
				if found == nil || found[1] != key {
					t.Errorf("%s, %s: found %q in %s", expression, where, found, fmt.Sprintf(text, key))
				}
			}
			var both []string
			for _, m := range re.FindAllStringSubmatch(key+"\n"+other, -1) {
				both = append(both, m[1])
			}
			if !slices.Equal(both, []string{key, other}) {
				t.Errorf("%s: of two keys found %q", expression, both)
			}
			for where, text := range map[string]string{
				"in a longer word":      key + "x",
				"behind a longer word":  "x" + key,
				"behind an underscore":  "my_" + key,
				"cut short":             key[:len(key)-1],
				"in upper case":         strings.ToUpper(key),
				"with another prefix":   "other_" + key[len(f.Prefixes()[0]):],
				"with another boundary": strings.Replace(key, "_", "-", 1),
			} {
				if found := re.FindString(text); found != "" && text != key {
					t.Errorf("%s, %s: found %q in %q", expression, where, found, text)
				}
			}
		}
	}
}

// What a scanner finds is a key, but for the checksum, and every key is found.
func FuzzRegexp(f *testing.F) {
	expressions := make([]*regexp.Regexp, 0, len(scannedFormats))
	for i, format := range scannedFormats {
		expressions = append(expressions, regexp.MustCompile(format.Regexp()))
		key := generate(f, format, "")
		for _, text := range []string{key, key + "x", "x" + key, key + "\n", key[:len(key)-1] + "-", key[:len(key)-1] + "!", strings.Replace(key, "_", "__", 1)} {
			f.Add(uint8(i), text) //nolint:gosec // few formats
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, text string) {
		format, re := scannedFormats[int(i)%len(scannedFormats)], expressions[int(i)%len(scannedFormats)]
		found := re.FindStringSubmatch(text)
		whole := found != nil && found[1] == text
		_, _, ok := format.Parse(text)
		if ok && !whole {
			t.Errorf("%s: does not find the key %q", re, text)
		}
		if found == nil {
			return
		}
		key := found[1]
		if _, native := format.scannable.(apikey.Native); native {
			key = withChecksum(key)
		}
		if _, _, ok := format.Parse(key); !ok {
			t.Errorf("%s: finds %q in %q, which is no key", re, key, text)
		}
	})
}
