package usher

import "strings"

// Challenge returns a value for the WWW-Authenticate field (RFC 9110, section 11.6.1):
// the scheme and its parameters, given as alternating names and values. A parameter with
// an empty value is omitted. Values are quoted, so no value can end early and begin
// another challenge; bytes that a header field may not carry become spaces.
func Challenge(scheme string, params ...string) string {
	var b strings.Builder
	b.WriteString(scheme)
	sep := " "
	for i := 0; i+1 < len(params); i += 2 {
		if params[i+1] == "" {
			continue
		}
		b.WriteString(sep)
		sep = ", "
		b.WriteString(params[i])
		b.WriteString(`="`)
		for _, c := range []byte(params[i+1]) {
			switch {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c >= 0x7f:
				b.WriteByte(' ')
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
	}
	return b.String()
}
