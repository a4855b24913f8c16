package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/config"
	"github.com/usher-go/usher/internal/jsonbody"
)

// A Format is what the keys of a service look like: [Native] for a new service,
// [Opaque], [Split] and [Plain] for keys that exist, or one of your own. It must
// be safe for concurrent use.
type Format interface {
	// Parse reports whether text has the shape of a key, checksum included. It
	// returns the environment that the shape names, or "", and how many of the
	// first characters may be shown to people.
	//
	// Text comes from strangers and is at most 256 bytes long. Parse must test its
	// length first and allocate nothing.
	Parse(text string) (environment string, visible int, ok bool)
	// Prefixes returns the fixed beginnings of all keys, one for each
	// environment, or none. Text that begins with one is judged by the formats
	// that have it and by no other.
	Prefixes() []string
	// Entropy returns how many bits of a generated key nobody can predict. It is
	// 0 for a format that only recognises keys.
	Entropy() int
	// Generate makes a key for environment from random, or for the format's usual
	// environment if that is "". A format whose shape names no environment takes
	// any. An error that is an [*usher.Error] is shown to the caller who asked for
	// this environment.
	Generate(random io.Reader, environment string) (string, error)
}

// maxLength bounds the length of every key, and with it what one costs.
const maxLength = 256

// minEntropy is the least for a generated key (OWASP ASVS 5.0, 11.5.1).
const minEntropy = 128

const (
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// Native is the format for a service that starts now:
// <prefix>_<environment>_ and 43 base62 characters, which hold 256 random bits,
// and then 6 base62 characters of CRC-32 (IEEE) over these 43, computed as for
// the tokens of GitHub. A mistyped, cut or invented key is recognised without
// asking a store, and a scanner that finds one knows whose it is.
//
// The checksum is public: it stops accidents and noise, not somebody who
// computes it. Limit failed attempts per address for that.
type Native struct {
	// Prefix names the service, in letters, digits and "_". Required.
	Prefix string
	// Environments are the names that may follow the prefix, the usual one
	// first. With none, keys are <prefix>_ and the rest.
	Environments []string
}

const (
	nativeBody     = 43
	nativeChecksum = 6
)

// Parse implements [Format]. Visible are the prefix and four characters.
func (f Native) Parse(text string) (environment string, visible int, ok bool) {
	environment, start, ok := cutLabel(text, f.Prefix, f.Environments, nativeBody+nativeChecksum)
	if !ok {
		return "", 0, false
	}
	body := text[start : start+nativeBody]
	sum := checksum(body)
	if text[start+nativeBody:] != string(sum[:]) || !madeOf(body, isBase62) {
		return "", 0, false
	}
	return environment, start + 4, true
}

// Prefixes implements [Format].
func (f Native) Prefixes() []string { return labels(f.Prefix, f.Environments) }

// Entropy implements [Format].
func (Native) Entropy() int { return 256 }

// Generate implements [Format].
func (f Native) Generate(random io.Reader, environment string) (string, error) {
	label, err := label(f.Prefix, f.Environments, environment)
	if err != nil {
		return "", err
	}
	body, err := randomText(random, base62, nativeBody)
	if err != nil {
		return "", err
	}
	sum := checksum(body)
	return label + body + string(sum[:]), nil
}

func (f Native) clone() Format { f.Environments = slices.Clone(f.Environments); return f }

func (f Native) faults() []fault { return labelFaults(f.Prefix, f.Environments) }

// checksum returns the CRC-32 of body in base62, padded with zeros on the left.
func checksum(body string) (sum [nativeChecksum]byte) {
	crc := crc(body)
	for i := len(sum) - 1; i >= 0; i-- {
		sum[i] = base62[crc%62]
		crc /= 62
	}
	return sum
}

// crc is crc32.ChecksumIEEE, which would take a copy of text on the heap.
func crc(text string) uint32 {
	c := ^uint32(0)
	for ; len(text) >= 8; text = text[8:] {
		c ^= uint32(text[0]) | uint32(text[1])<<8 | uint32(text[2])<<16 | uint32(text[3])<<24
		c = crcTables[7][c&0xff] ^ crcTables[6][c>>8&0xff] ^ crcTables[5][c>>16&0xff] ^ crcTables[4][c>>24] ^
			crcTables[3][text[4]] ^ crcTables[2][text[5]] ^ crcTables[1][text[6]] ^ crcTables[0][text[7]]
	}
	for i := range len(text) {
		c = crcTables[0][byte(c)^text[i]] ^ c>>8
	}
	return ^c
}

// crcTables say what a byte does to the checksum once n others have followed.
var crcTables = func() (t [8]crc32.Table) {
	t[0] = *crc32.IEEETable
	for n := 1; n < len(t); n++ {
		for i, c := range t[n-1] {
			t[n][i] = t[0][byte(c)] ^ c>>8
		}
	}
	return t
}()

// Opaque is a fixed prefix and then random base64url characters without a
// checksum, such as ic_... or kaiko_live_...
type Opaque struct {
	// Prefix and Environments are as in [Native].
	Prefix       string
	Environments []string
	// Length is the number of random characters, from 16 to 128; zero means 43.
	// A key of fewer than 22 is recognised but not generated.
	Length int
}

// Parse implements [Format]. Visible are the prefix and up to four characters,
// fewer for a short key.
func (f Opaque) Parse(text string) (environment string, visible int, ok bool) {
	environment, start, ok := cutLabel(text, f.Prefix, f.Environments, f.length())
	if !ok || !madeOf(text[start:], isBase64url) {
		return "", 0, false
	}
	return environment, start + min(4, max(0, (f.length()-22)/2)), true
}

// Prefixes implements [Format].
func (f Opaque) Prefixes() []string { return labels(f.Prefix, f.Environments) }

// Entropy implements [Format].
func (f Opaque) Entropy() int { return 6 * f.length() }

// Generate implements [Format].
func (f Opaque) Generate(random io.Reader, environment string) (string, error) {
	label, err := label(f.Prefix, f.Environments, environment)
	if err != nil {
		return "", err
	}
	body, err := randomText(random, base64url, f.length())
	return label + body, err
}

func (f Opaque) length() int { return cmp.Or(f.Length, 43) }

func (f Opaque) clone() Format { f.Environments = slices.Clone(f.Environments); return f }

func (f Opaque) faults() []fault {
	faults := labelFaults(f.Prefix, f.Environments)
	if n := f.length(); n < 16 || n > 128 {
		faults = append(faults, fault{"Length", "must be from 16 to 128"})
	}
	return faults
}

// Split is a fixed prefix, a public identifier of 16 base64url characters, a
// dot, and a secret of 43: ksr_live_<id>.<secret>. The identifier is visible;
// the key is found by the hash of the whole all the same.
type Split struct {
	// Prefix and Environments are as in [Native].
	Prefix       string
	Environments []string
}

const (
	splitID     = 16
	splitSecret = 43
)

// Parse implements [Format]. Visible is everything before the dot.
func (f Split) Parse(text string) (environment string, visible int, ok bool) {
	environment, start, ok := cutLabel(text, f.Prefix, f.Environments, splitID+1+splitSecret)
	if !ok {
		return "", 0, false
	}
	dot := start + splitID
	if text[dot] != '.' || !madeOf(text[start:dot], isBase64url) || !madeOf(text[dot+1:], isBase64url) {
		return "", 0, false
	}
	return environment, dot, true
}

// Prefixes implements [Format].
func (f Split) Prefixes() []string { return labels(f.Prefix, f.Environments) }

// Entropy implements [Format]. It does not count the identifier.
func (Split) Entropy() int { return 6 * splitSecret }

// Generate implements [Format].
func (f Split) Generate(random io.Reader, environment string) (string, error) {
	label, err := label(f.Prefix, f.Environments, environment)
	if err != nil {
		return "", err
	}
	text, err := randomText(random, base64url, splitID+splitSecret)
	if err != nil {
		return "", err
	}
	return label + text[:splitID] + "." + text[splitID:], nil
}

func (f Split) clone() Format { f.Environments = slices.Clone(f.Environments); return f }

func (f Split) faults() []fault { return labelFaults(f.Prefix, f.Environments) }

// Plain recognises keys that were issued elsewhere and have no prefix in common:
// any visible ASCII without a comma, with which proxies join header lines. It
// generates none.
type Plain struct {
	// MinLength and MaxLength bound the length in bytes; zero means 16 and 256,
	// which are also the outermost bounds.
	MinLength, MaxLength int
}

// Parse implements [Format]. Nothing is visible.
func (f Plain) Parse(text string) (environment string, visible int, ok bool) {
	shortest, longest := f.bounds()
	return "", 0, len(text) >= shortest && len(text) <= longest && madeOf(text, isPlain)
}

// Prefixes implements [Format].
func (Plain) Prefixes() []string { return nil }

// Entropy implements [Format].
func (Plain) Entropy() int { return 0 }

// Generate implements [Format]. It always fails.
func (Plain) Generate(io.Reader, string) (string, error) {
	return "", errors.New("apikey: a Plain format generates no keys")
}

func (f Plain) bounds() (shortest, longest int) {
	return cmp.Or(f.MinLength, 16), cmp.Or(f.MaxLength, maxLength)
}

func (f Plain) clone() Format { return f }

func (f Plain) faults() []fault {
	if shortest, longest := f.bounds(); shortest < 16 || longest < shortest || longest > maxLength {
		return []fault{{"MinLength", fmt.Sprintf("must be at least 16 and at most MaxLength, which is at most %d", maxLength)}}
	}
	return nil
}

// A definition is a format of this package.
type definition interface {
	Format
	// clone returns a copy that shares nothing with the format.
	clone() Format
	faults() []fault
}

// A fault is what is wrong with a field of a format.
type fault struct{ field, reason string }

// compileFormat returns a copy of f if it has no faults, and else adds them.
func compileFormat(f Format, faults config.Faults[usher.ConfigError], field string) (Format, bool) {
	switch f := f.(type) {
	case nil:
		faults.Add(field, config.Required)
		return nil, false
	case definition:
		list := f.faults()
		for _, fault := range list {
			faults.In(field).Add(fault.field, fault.reason)
		}
		return f.clone(), len(list) == 0
	}
	return f, true
}

// cutLabel finds where the body of text begins, from the length that it has to
// have: a body may hold "_" and "-" itself, and so may a prefix.
func cutLabel(text, prefix string, environments []string, body int) (environment string, start int, ok bool) {
	start = len(text) - body
	if start <= len(prefix) || text[:len(prefix)] != prefix || text[len(prefix)] != '_' || text[start-1] != '_' {
		return "", 0, false
	}
	if len(environments) == 0 {
		return "", start, start == len(prefix)+1
	}
	for _, e := range environments {
		if start == len(prefix)+len(e)+2 && text[len(prefix)+1:start-1] == e {
			return e, start, true
		}
	}
	return "", 0, false
}

// label returns the fixed beginning of keys for environment.
func label(prefix string, environments []string, environment string) (string, error) {
	switch {
	case len(environments) == 0:
		return prefix + "_", nil
	case environment == "":
		environment = environments[0]
	case !slices.Contains(environments, environment):
		return "", jsonbody.Invalid(usher.Field{Name: "environment", Message: "must be one of " + strings.Join(environments, ", ") + "."})
	}
	return prefix + "_" + environment + "_", nil
}

func labels(prefix string, environments []string) []string {
	if len(environments) == 0 {
		return []string{prefix + "_"}
	}
	all := make([]string, 0, len(environments))
	for _, e := range environments {
		all = append(all, prefix+"_"+e+"_")
	}
	return all
}

func labelFaults(prefix string, environments []string) (faults []fault) {
	if prefix == "" || len(prefix) > 32 || !madeOf(prefix, isBase62OrUnderscore) {
		faults = append(faults, fault{"Prefix", `must be 1 to 32 letters, digits and "_"`})
	}
	for i, e := range environments {
		if e == "" || len(e) > 16 || !madeOf(e, isBase62OrUnderscore) || slices.Contains(environments[:i], e) {
			faults = append(faults, fault{fmt.Sprintf("Environments[%d]", i), `must be 1 to 16 letters, digits and "_", and listed once`})
		}
	}
	return faults
}

// randomText returns n characters of alphabet, each as likely as any other:
// bytes that would make some likelier are thrown away.
func randomText(random io.Reader, alphabet string, n int) (string, error) {
	fair := 256 - 256%len(alphabet)
	text := make([]byte, 0, n)
	var buf [64]byte
	// Hardly ever are more than n bytes thrown away; a source of nothing else is
	// broken.
	for range 2 + 2*n/len(buf) {
		if _, err := io.ReadFull(random, buf[:]); err != nil {
			return "", fmt.Errorf("apikey: no random bytes: %w", err)
		}
		for _, b := range buf {
			if int(b) < fair && len(text) < n {
				text = append(text, alphabet[int(b)%len(alphabet)])
			}
		}
		if len(text) == n {
			return string(text), nil
		}
	}
	return "", errors.New("apikey: the random bytes are not random")
}

// A class is a set of characters, as bits of one table for all.
type class uint8

const (
	isBase62 class = 1 << iota
	isBase64url
	isBase62OrUnderscore
	isPlain // visible ASCII but the comma
)

var classes = func() (table [256]class) {
	for c := range table {
		if strings.IndexByte(base62, byte(c)) >= 0 {
			table[c] |= isBase62 | isBase62OrUnderscore
		}
		if strings.IndexByte(base64url, byte(c)) >= 0 {
			table[c] |= isBase64url
		}
		if c > ' ' && c < 0x7f && c != ',' {
			table[c] |= isPlain
		}
	}
	table['_'] |= isBase62OrUnderscore
	return table
}()

func madeOf(text string, want class) bool {
	for i := range len(text) {
		if classes[text[i]]&want == 0 {
			return false
		}
	}
	return true
}
