package apikey_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/race"
)

var (
	native = apikey.Native{Prefix: "shop", Environments: []string{"live", "test"}}
	opaque = apikey.Opaque{Prefix: "ic", Length: 44}
	split  = apikey.Split{Prefix: "ksr", Environments: []string{"live", "dev"}}
)

func generate(t testing.TB, f apikey.Format, environment string) string {
	t.Helper()
	text, err := f.Generate(rand.Reader, environment)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestGeneratedKeysHaveTheirForm(t *testing.T) {
	for _, test := range []struct {
		name        string
		format      apikey.Format
		environment string
		pattern     string
		want        string // environment found in the shape
		visible     int
	}{
		{"native", native, "test", `^shop_test_[0-9A-Za-z]{49}$`, "test", 14},
		{"native, usual environment", native, "", `^shop_live_[0-9A-Za-z]{49}$`, "live", 14},
		{"native without environments takes any", apikey.Native{Prefix: "a_b"}, "staging", `^a_b_[0-9A-Za-z]{49}$`, "", 8},
		{"InsiteChat", opaque, "", `^ic_[0-9A-Za-z_-]{44}$`, "", 7},
		{"Kaiko", apikey.Opaque{Prefix: "kaiko", Environments: []string{"live", "test"}}, "test", `^kaiko_test_[0-9A-Za-z_-]{43}$`, "test", 15},
		{"Kisara", split, "dev", `^ksr_dev_[A-Za-z0-9_-]{16}\.[A-Za-z0-9_-]{43}$`, "dev", 24},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := map[string]bool{}
			for range 200 {
				text := generate(t, test.format, test.environment)
				if !regexp.MustCompile(test.pattern).MatchString(text) {
					t.Fatalf("%q does not match %s", text, test.pattern)
				}
				if seen[text] {
					t.Fatalf("%q was generated twice", text)
				}
				seen[text] = true
				environment, visible, ok := test.format.Parse(text)
				if !ok || environment != test.want || visible != test.visible {
					t.Fatalf("Parse(%q) = %q, %d, %v", text, environment, visible, ok)
				}
			}
		})
	}
}

// The body and checksum are those of a GitHub token that has been published; the
// body has 30 characters there and 43 here.
func TestNativeChecksumIsThatOfGitHubTokens(t *testing.T) {
	if got := apikey.Checksum("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"); got != "0mLq17" {
		t.Fatalf("checksum %s, want 0mLq17", got)
	}
	for range 500 {
		text := generate(t, native, "")
		body, sum := text[10:53], text[53:]
		if want := slowChecksum(body); sum != want {
			t.Fatalf("checksum of %q is %q, want %q", body, sum, want)
		}
	}
}

// slowChecksum is CRC-32 in base62, by the standard library.
func slowChecksum(body string) string {
	n := big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))).Text(62)
	n = strings.Map(func(r rune) rune { // big.Int has lower case first
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, n)
	return strings.Repeat("0", 6-len(n)) + n
}

func TestEveryMistypedNativeKeyIsRefused(t *testing.T) {
	text := generate(t, native, "")
	for i := range len(text) {
		for _, c := range []byte("aZ9_-. ,\x00\xff") {
			if text[i] == c {
				continue
			}
			wrong := text[:i] + string([]byte{c}) + text[i+1:]
			if _, _, ok := native.Parse(wrong); ok {
				t.Errorf("%q passes for %q", wrong, text)
			}
		}
	}
}

func TestTextOfAnotherFormIsNoKey(t *testing.T) {
	for name, f := range map[string]apikey.Format{"native": native, "opaque": opaque, "split": split} {
		good := generate(t, f, "")
		for _, bad := range []string{
			"", "_", "shop", "shop_", "shop_live_", "ksr_live_.", good[1:], good[:len(good)-1], good + "0", " " + good, good + " ",
			strings.ToUpper(good), strings.Replace(good, "_", "-", 1), strings.Replace(good, "live", "prod", 1) + strings.Repeat("x", 3),
			strings.Repeat("_", len(good)), strings.Repeat(".", len(good)), good[:len(good)-1] + "\n", good + "," + good,
		} {
			if bad == good {
				continue
			}
			if _, _, ok := f.Parse(bad); ok {
				t.Errorf("%s takes %q", name, bad)
			}
		}
	}
}

func TestBodiesMayHoldTheSeparator(t *testing.T) {
	for range 2000 {
		text := generate(t, opaque, "")
		if _, _, ok := opaque.Parse(text); !ok {
			t.Fatalf("%q is refused", text)
		}
	}
	body := strings.Repeat("_", 44)
	if _, _, ok := opaque.Parse("ic_" + body); !ok {
		t.Error("a body of separators is refused")
	}
	nested := apikey.Opaque{Prefix: "a", Environments: []string{"x", "x_y"}, Length: 20}
	if e, _, ok := nested.Parse("a_x_" + strings.Repeat("_", 20)); !ok || e != "x" {
		t.Errorf("environment %q, %v", e, ok)
	}
	if e, _, ok := nested.Parse("a_x_y_" + strings.Repeat("_", 20)); !ok || e != "x_y" {
		t.Errorf("environment %q, %v", e, ok)
	}
}

func TestPlainAcceptsVisibleCharactersOfTheRightLength(t *testing.T) {
	f := apikey.Plain{MinLength: 20, MaxLength: 24}
	for text, want := range map[string]bool{
		strings.Repeat("a", 19): false, strings.Repeat("a", 20): true, strings.Repeat("~!", 12): true, strings.Repeat("a", 25): false,
		strings.Repeat("a", 10) + " " + strings.Repeat("a", 10):    false,
		strings.Repeat("a", 10) + "," + strings.Repeat("a", 10):    false,
		strings.Repeat("a", 10) + "\x7f" + strings.Repeat("a", 10): false,
		strings.Repeat("a", 10) + "é" + strings.Repeat("a", 10):    false,
	} {
		if _, _, ok := f.Parse(text); ok != want {
			t.Errorf("Parse(%q) = %v", text, ok)
		}
	}
	if _, err := f.Generate(rand.Reader, ""); err == nil {
		t.Error("a plain key was generated")
	}
}

func TestCharactersAreEquallyLikely(t *testing.T) {
	const keys = 4000
	for name, f := range map[string]struct {
		format apikey.Format
		start  int
		end    int
		n      int
	}{"base62": {native, 10, 53, 62}, "base64url": {opaque, 3, 47, 64}} {
		counts := map[byte]int{}
		total := 0
		for range keys {
			text := generate(t, f.format, "")
			for _, c := range []byte(text[f.start:f.end]) {
				counts[c]++
				total++
			}
		}
		if len(counts) != f.n {
			t.Errorf("%s: %d different characters, want %d", name, len(counts), f.n)
		}
		// Modulo 62 would make eight characters likelier by a quarter. A fair count is
		// practically always within 7 standard deviations, here less than 14 percent.
		mean := float64(total) / float64(f.n)
		for c, n := range counts {
			if d := float64(n) - mean; d*d > 49*mean {
				t.Errorf("%s: %q stands there %d times, mean %.0f", name, c, n, mean)
			}
		}
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("no entropy") }

// constReader is a source that returns the same byte without an error.
type constReader byte

func (c constReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

func TestNoKeyWithoutRandomness(t *testing.T) {
	for name, f := range map[string]apikey.Format{"native": native, "opaque": opaque, "split": split} {
		for source, r := range map[string]interface{ Read([]byte) (int, error) }{
			"failing": failingReader{}, "short": bytes.NewReader(make([]byte, 10)),
		} {
			if text, err := f.Generate(r, ""); err == nil {
				t.Errorf("%s from a %s source: %q", name, source, text)
			}
		}
	}
	if text, err := native.Generate(constReader(0xff), ""); err == nil {
		t.Errorf("from bytes that are all discarded: %q", text)
	}
}

func TestAnUnknownEnvironmentIsTheCallersFault(t *testing.T) {
	_, err := native.Generate(rand.Reader, "prod")
	var e *usher.Error
	if !errors.As(err, &e) || e.Status != 400 {
		t.Fatalf("%v", err)
	}
	if diff := compare.Diff([]usher.Field{{Name: "environment", Message: "must be one of live, test."}}, e.Fields); diff != "" {
		t.Error(diff)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	good := generate(t, native, "")
	for name, text := range map[string]string{
		"good": good, "wrong checksum": good[:len(good)-1] + "!", "short": "x", "900 KiB": strings.Repeat("a", 900<<10),
	} {
		for _, f := range []apikey.Format{native, opaque, split, apikey.Plain{}} {
			if n := testing.AllocsPerRun(100, func() { f.Parse(text) }); n != 0 {
				t.Errorf("%T of a %s key: %v allocations", f, name, n)
			}
		}
	}
}

func FuzzNative(f *testing.F) {
	good := "shop_live_" + strings.Repeat("0", 43) + slowChecksum(strings.Repeat("0", 43))
	f.Add(good)
	f.Add(good[:len(good)-1] + "x")
	f.Add("shop_test__" + strings.Repeat("_", 48))
	pattern := regexp.MustCompile(`\Ashop_(live|test)_([0-9A-Za-z]{43})([0-9A-Za-z]{6})\z`)
	f.Fuzz(func(t *testing.T, text string) {
		parts := pattern.FindStringSubmatch(text)
		want := parts != nil && slowChecksum(parts[2]) == parts[3]
		environment, visible, ok := native.Parse(text)
		if ok != want {
			t.Fatalf("Parse(%q) = %v, want %v", text, ok, want)
		}
		if ok && (environment != parts[1] || visible != 14) {
			t.Fatalf("Parse(%q) = %q, %d", text, environment, visible)
		}
		// Whatever the body, the right checksum makes a key of it.
		if parts != nil {
			if _, _, ok := native.Parse("shop_" + parts[1] + "_" + parts[2] + slowChecksum(parts[2])); !ok {
				t.Fatalf("the checksum of %q is not recognised", parts[2])
			}
		}
	})
}

func FuzzOpaque(f *testing.F) {
	format := apikey.Opaque{Prefix: "a_b", Environments: []string{"live", "l"}, Length: 20}
	f.Add("a_b_live_" + strings.Repeat("_", 20))
	f.Add("a_b_l_" + strings.Repeat("-", 20))
	f.Add("a_b_" + base64.RawURLEncoding.EncodeToString(make([]byte, 15)))
	pattern := regexp.MustCompile(`\Aa_b_(live|l)_[0-9A-Za-z_-]{20}\z`)
	f.Fuzz(func(t *testing.T, text string) {
		parts := pattern.FindStringSubmatch(text)
		environment, visible, ok := format.Parse(text)
		if ok != (parts != nil) || ok && (environment != parts[1] || visible > len(text)) {
			t.Fatalf("Parse(%q) = %q, %d, %v", text, environment, visible, ok)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add("ksr_live_" + strings.Repeat("_", 16) + "." + strings.Repeat("-", 43))
	f.Add("ksr_dev_" + strings.Repeat(".", 60))
	pattern := regexp.MustCompile(`\Aksr_(live|dev)_[0-9A-Za-z_-]{16}\.[0-9A-Za-z_-]{43}\z`)
	f.Fuzz(func(t *testing.T, text string) {
		parts := pattern.FindStringSubmatch(text)
		environment, visible, ok := split.Parse(text)
		if ok != (parts != nil) || ok && (environment != parts[1] || text[visible] != '.') {
			t.Fatalf("Parse(%q) = %q, %d, %v", text, environment, visible, ok)
		}
	})
}

func FuzzPlain(f *testing.F) {
	f.Add("abcdefghijklmnopqrstuvwxyz")
	f.Add("abcdefghijklmnopqrstuvwxyz,")
	pattern := regexp.MustCompile(`\A[!-+\--~]{16,256}\z`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, ok := (apikey.Plain{}).Parse(text); ok != pattern.MatchString(text) {
			t.Fatalf("Parse(%q) = %v", text, ok)
		}
	})
}

func BenchmarkShapeCheck(b *testing.B) {
	good := generate(b, native, "")
	for name, text := range map[string]string{"good": good, "wrong checksum": good[:58] + "!", "garbage": "garbage", "900KiB": strings.Repeat("a", 900<<10)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				native.Parse(text)
			}
		})
	}
}

func ExampleNative() {
	format := apikey.Native{Prefix: "shop", Environments: []string{"live", "test"}}
	_, _, ok := format.Parse("shop_live_no-such-key")
	fmt.Println(format.Prefixes(), format.Entropy(), ok)
	// Output: [shop_live_ shop_test_] 256 false
}
