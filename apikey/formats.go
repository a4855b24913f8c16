package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
)

// Native is the format for a new service: <prefix>_<environment>_ and 43 base62
// characters with 256 random bits, followed by 6 base62 characters of their CRC-32
// (IEEE), computed as for the tokens of GitHub. A mistyped, truncated or invented key is
// refused without a lookup, and a secret scanner that finds a key can name the service
// that issued it.
//
// The checksum is public. It stops accidents and noise, but not an attacker who computes
// it: limit failed attempts per address as well.
type Native struct {
	// Prefix names the service, in letters, digits and "_". Required.
	Prefix string
	// Environments are the names that may follow the prefix, the usual one first. If
	// there are none, a key is <prefix>_ followed by the 49 characters.
	Environments []string
}

const (
	nativeBody     = 43
	nativeChecksum = 6
)

// Parse implements [Format]. The prefix and four characters are visible.
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

func (f Native) environments() []string { return f.Environments }

func (f Native) mayBegin(prefix string) bool {
	return labelled(prefix, f.Prefixes(), func(begin string) bool {
		return len(begin) <= nativeBody+nativeChecksum && madeOf(begin, isBase62)
	})
}

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

// crc is crc32.ChecksumIEEE without the copy of text that it would need on the heap.
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

// crcTables[n] has the effect of a byte on the checksum once n more bytes have followed.
var crcTables = func() (t [8]crc32.Table) {
	t[0] = *crc32.IEEETable
	for n := 1; n < len(t); n++ {
		for i, c := range t[n-1] {
			t[n][i] = t[0][byte(c)] ^ c>>8
		}
	}
	return t
}()

// Opaque is a fixed prefix followed by random base64url characters without a checksum,
// such as shop_live_...
type Opaque struct {
	// Prefix and Environments are as in [Native].
	Prefix       string
	Environments []string
	// Length is the number of random characters, from 16 to 128; zero means 43. Keys
	// with fewer than 22 are accepted but not generated.
	Length int
}

// Parse implements [Format]. The prefix and up to four characters are visible, fewer for
// a short key.
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

func (f Opaque) environments() []string { return f.Environments }

func (f Opaque) mayBegin(prefix string) bool {
	return labelled(prefix, f.Prefixes(), func(begin string) bool {
		return len(begin) <= f.length() && madeOf(begin, isBase64url)
	})
}

func (f Opaque) faults() []fault {
	faults := labelFaults(f.Prefix, f.Environments)
	if n := f.length(); n < 16 || n > 128 {
		faults = append(faults, fault{"Length", "must be from 16 to 128"})
	}
	return faults
}

// Split is a fixed prefix, a public identifier of 16 base64url characters, a dot, and a
// secret of 43 such characters: shop_live_<id>.<secret>. The identifier is visible, but a
// key is looked up by the hash of its whole text.
type Split struct {
	// Prefix and Environments are as in [Native].
	Prefix       string
	Environments []string
}

const (
	splitID     = 16
	splitSecret = 43
)

// Parse implements [Format]. Everything before the dot is visible.
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

func (f Split) environments() []string { return f.Environments }

func (f Split) mayBegin(prefix string) bool {
	return labelled(prefix, f.Prefixes(), func(begin string) bool {
		id, secret, dot := strings.Cut(begin, ".")
		return len(id) <= splitID && (!dot || len(id) == splitID) && len(secret) <= splitSecret && madeOf(id+secret, isBase64url)
	})
}

func (f Split) faults() []fault { return labelFaults(f.Prefix, f.Environments) }

// Plain accepts keys that were issued elsewhere and have no common prefix: any visible
// ASCII characters except the comma, because proxies join header lines with it. It
// generates none.
type Plain struct {
	// MinLength and MaxLength bound the length in bytes; zero means 16 and 256, which
	// are also the widest bounds.
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

func (Plain) environments() []string { return nil }

func (f Plain) mayBegin(prefix string) bool {
	_, longest := f.bounds()
	return len(prefix) <= longest && madeOf(prefix, isPlain)
}

func (f Plain) faults() []fault {
	if shortest, longest := f.bounds(); shortest < 16 || longest < shortest || longest > maxLength {
		return []fault{{"MinLength", fmt.Sprintf("must be at least 16 and at most MaxLength, which is at most %d", maxLength)}}
	}
	return nil
}
