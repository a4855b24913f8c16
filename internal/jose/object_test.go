package jose_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/jose"
)

func TestANameThatOccursTwiceIsRefusedAtEveryDepth(t *testing.T) {
	many := func(n int, more string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"m%d":{"m":%d},`, i, i)
		}
		return "{" + b.String() + more + "}"
	}
	for text, want := range map[string]bool{
		`{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}`: true,
		`{"a":{"b":{}},"b":{"a":[]}}`:               true,
		`{"a":1,"A":2,"b":{"a":1,"A":2}}`:           true,
		`{"a":1,"a":1}`:                             false,
		`{"a":1,"b":2,"\u0061":1}`:                  false,
		`{"b":{"a":1,"a":1}}`:                       false,
		`{"b":{"a":{},"c":{"a":1},"a":1}}`:          false,
		`{"b":[0,[{"a":1},{"a":{"b":1},"a":1}]]}`:   false,
		`{"b":{"\u0061":1,"a":1}}`:                  false,
		`{"":1,"a":{"":1,"":2}}`:                    false,
		many(15, `"m0":1`):                          false,
		many(16, `"m0":1`):                          false,
		many(17, `"m0":1`):                          false,
		many(17, `"m16":1`):                         false,
		many(500, `"m499":1`):                       false,
		many(15, `"x":1`):                           true,
		many(16, `"x":1`):                           true,
		many(17, `"x":1`):                           true,
		many(500, `"x":1`):                          true,
		`{"o":` + many(20, `"m19":1`) + `}`:         false,
		`{"o":` + many(20, `"o":1`) + `,"m1":1}`:    true,
		`{"o":` + many(20, `"o":1`) + `,"o":1}`:     false,
	} {
		if _, _, err := jose.ParseObject(nil, []byte(text)); (err == nil) != want {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

func TestMembersAreInOrderAndWithoutSpace(t *testing.T) {
	text, members, err := jose.ParseObject([]jose.Member{{Name: "before"}}, []byte("\t{ \"a\" : -1.5e3 , \"b\":[ 1 , {\"c\" : 2} ]\n,\"d\" : \"}\\\"\" , \"e\":{ } , \"f\":null } \r\n"))
	want := []jose.Member{{Name: "before"}, {"a", "-1.5e3"}, {"b", `[ 1 , {"c" : 2} ]`}, {"d", `"}\""`}, {"e", "{ }"}, {"f", "null"}}
	if err != nil || fmt.Sprint(members) != fmt.Sprint(want) || !strings.HasSuffix(text, "} \r\n") {
		t.Errorf("%q %q %v", text, members, err)
	}
}

func TestNamesInAnotherCase(t *testing.T) {
	names := jose.Names{Alone: []string{"exp", "iss"}, Beside: []string{"scope", "sid"}}
	for text, want := range map[string]bool{
		`{"exp":1,"iss":2,"scope":3}`:       false,
		`{"exp":1,"EXP":2}`:                 true,
		`{"Exp":1}`:                         true,
		`{"i\u017fs":1}`:                    true,
		`{"Scope":1,"SID":2}`:               false,
		`{"Scope":1,"SCOPE":2}`:             false,
		`{"Scope":1,"scope":2}`:             true,
		`{"scope":1,"\u017fcope":2}`:        true,
		`{"role":1,"Role":2,"ROLE":3}`:      false,
		`{"a":{"EXP":1,"exp":2,"Scope":3}}`: false,
	} {
		_, members, err := jose.ParseObject(nil, []byte(text))
		if err != nil || names.Confused(members) != want {
			t.Errorf("%s: %v %t", text, err, !want)
		}
	}
}

// No letter of a name is overlooked.
func TestEveryLetterOfANameMayBeInAnotherCase(t *testing.T) {
	for _, names := range []jose.Names{jose.ClaimNames, jose.ResponseNames, jose.KeyNames, {Alone: []string{"a", "z", "zip"}}} {
		for _, name := range slices.Concat(names.Alone, names.Beside) {
			for i := range len(name) {
				other := name[:i] + strings.ToUpper(name[i:i+1]) + name[i+1:]
				if members := []jose.Member{{Name: name}, {Name: other}}; names.Confused(members) != (other != name) {
					t.Errorf("%s beside %s", other, name)
				}
			}
		}
	}
}

// The work must grow with the length of a text, not with its square.
func BenchmarkMembers(b *testing.B) {
	for _, n := range []int{8, 100, 1000, 10_000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, `,"member %d":1`, i)
		}
		data := []byte("{" + text.String()[1:] + "}")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := jose.ParseObject(nil, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
