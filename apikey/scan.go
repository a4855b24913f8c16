package apikey

import (
	"fmt"
	"strings"
)

// Regexp returns a regular expression for secret scanners: RE2 syntax, which PCRE and
// Hyperscan also have. Its only group matches the texts that Parse accepts, whatever their
// checksum, unless they are part of a longer word. It is a rule of gitleaks as it is.
func (f Native) Regexp() string {
	return pattern(f.Prefix, f.Environments, fmt.Sprintf("[0-9A-Za-z]{%d}", nativeBody+nativeChecksum), "0-9A-Za-z_")
}

// Regexp returns a regular expression for secret scanners, as [Native.Regexp] does.
func (f Opaque) Regexp() string {
	return pattern(f.Prefix, f.Environments, fmt.Sprintf("[0-9A-Za-z_-]{%d}", f.length()), "0-9A-Za-z_-")
}

// Regexp returns a regular expression for secret scanners, as [Native.Regexp] does.
func (f Split) Regexp() string {
	return pattern(f.Prefix, f.Environments, fmt.Sprintf(`[0-9A-Za-z_-]{%d}\.[0-9A-Za-z_-]{%d}`, splitID, splitSecret), "0-9A-Za-z_-")
}

// pattern returns the expression for keys with this body, which no character of the class
// follows. A boundary of a word would not do, since a body may end with "-".
func pattern(prefix string, environments []string, body, class string) string {
	label := prefix + "_"
	if len(environments) > 0 {
		label += "(?:" + strings.Join(environments, "|") + ")_"
	}
	return `\b(` + label + body + `)(?:[^` + class + `]|$)`
}
