package usher_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-go/usher"
)

// A field is an authenticator for a credential in a header field. The value "good" is
// valid, "error" cannot be verified, "nothing" makes the authenticator break its
// contract, and any other value is refused.
type field string

func (f field) Authenticate(r *http.Request) (*usher.Principal, error) {
	switch v := r.Header.Get(string(f)); v {
	case "":
		return nil, usher.ErrNoCredential
	case "good", "good too":
		return &usher.Principal{ID: string(f) + " " + v, Kind: usher.KindAPIKey}, nil
	case "error":
		return nil, errors.New("the store of " + string(f) + " is down")
	case "own 503":
		return nil, &usher.Error{Status: http.StatusServiceUnavailable, Code: "own_code", RetryAfter: time.Minute}
	case "503 of none":
		return nil, &usher.Error{Status: http.StatusServiceUnavailable, Code: "own_code", Cause: usher.ErrNoCredential}
	case "own 403":
		return nil, &usher.Error{Status: http.StatusForbidden, Code: "own_code"}
	case "own 499":
		return nil, &usher.Error{Status: usher.StatusClientClosedRequest, Code: usher.CodeClientClosedRequest}
	case "wrapped":
		return nil, fmt.Errorf("field: %w", &usher.Error{Status: http.StatusUnauthorized, Code: "wrapped_code"})
	case "own":
		return nil, &usher.Error{Status: http.StatusUnauthorized, Challenges: []string{"Own"}}
	case "nil Error":
		var err *usher.Error
		return &usher.Principal{ID: "wrong"}, err
	case "nothing":
		return nil, nil //nolint:nilnil // the fault that is tested
	default:
		return nil, &usher.Error{Status: http.StatusUnauthorized, Code: "bad_" + strings.ToLower(string(f))}
	}
}

// A detector is a field that is a Detector: by default its carrier is the field itself,
// and it is never certain.
type detector struct {
	field
	carrier   string // of all its credentials, if not the field
	certain   bool
	challenge string
}

func (d detector) Detect(r *http.Request) (carrier string, certain bool) {
	if r.Header.Get(string(d.field)) == "" {
		return "", false
	}
	if d.carrier != "" {
		return d.carrier, d.certain
	}
	return string(d.field), d.certain
}

func (d detector) Challenge() string { return d.challenge }

// An outcome is the result of a request.
type outcome struct {
	Status    int
	Code      string // of the error
	Principal string // ID, "anonymous" or "" where the handler was not called
}

// A partial detector finds its field filled, but of other credentials than its own it
// learns only as it verifies them.
type partial struct{ detector }

func (p partial) Authenticate(r *http.Request) (*usher.Principal, error) {
	if r.Header.Get(string(p.field)) == "foreign" {
		return nil, usher.ErrNoCredential
	}
	return p.detector.Authenticate(r)
}

// Optional authenticators beside one that is not admit nobody as anonymous, not even
// with a field that they detect and then find to be none of theirs.
func TestOptionalAdmitsAsAnonymousOnlyIfAllAreOptional(t *testing.T) {
	a, b := partial{detector{field: "A"}}, detector{field: "B"}
	refused, anonymous := outcome{401, "missing_credential", ""}, outcome{200, "", "anonymous"}
	for name, tt := range map[string]struct {
		m    usher.Middleware
		want outcome
	}{
		"beside another":                {usher.Authenticate(usher.Optional(a), b), refused},
		"in a Precedence":               {usher.Authenticate(usher.Precedence(usher.Optional(a), b)), refused},
		"in a Precedence among others":  {usher.Authenticate(usher.Precedence(usher.Optional(a), b), detector{field: "C"}), refused},
		"alone":                         {usher.Authenticate(usher.Optional(a)), anonymous},
		"beside an optional one":        {usher.Authenticate(usher.Optional(a), usher.Optional(b)), anonymous},
		"in an optional Precedence":     {usher.Authenticate(usher.Optional(usher.Precedence(usher.Optional(a), b))), anonymous},
		"in a Precedence of optionals":  {usher.Authenticate(usher.Precedence(usher.Optional(a), usher.Optional(b))), anonymous},
		"in an optional one, and other": {usher.Authenticate(usher.Optional(usher.Precedence(a, b)), detector{field: "C"}), refused},
	} {
		r := get()
		r.Header.Set("A", "foreign")
		if got := outcomeOf(t, tt.m, r); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

func outcomeOf(t *testing.T, m usher.Middleware, r *http.Request) outcome {
	t.Helper()
	var o outcome
	w := serve(m.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		o.Principal = "anonymous"
		if p, ok := usher.PrincipalFrom(r.Context()); ok {
			o.Principal = p.ID
		}
	})), r)
	o.Status = w.Code
	if w.Body.Len() > 0 {
		var body struct{ Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("body %q: %v", w.Body, err)
		}
		o.Code = body.Code
	}
	return o
}

func TestAuthenticate(t *testing.T) {
	var (
		a, b   = field("A"), field("B")
		da, db = detector{field: "A"}, detector{field: "B"}
		// Both in the field A-or-B, as keys and tokens are in Authorization.
		sharedA        = detector{field: "A", carrier: "shared"}
		sharedB        = detector{field: "B", carrier: "shared"}
		sharedCertainB = detector{field: "B", carrier: "shared", certain: true}

		noCredential = outcome{401, "missing_credential", ""}
		twoOfThem    = outcome{401, "ambiguous_credentials", ""}
		unverified   = outcome{503, "authentication_unavailable", ""}
		anonymous    = outcome{200, "", "anonymous"}
		refusedA     = outcome{401, "bad_a", ""}
		goodA        = outcome{200, "", "A good"}
		goodB        = outcome{200, "", "B good"}
	)
	list := func(a ...usher.Authenticator) []usher.Authenticator { return a }
	tests := map[string]struct {
		authenticators []usher.Authenticator
		fields         []string
		want           outcome
	}{
		"nothing refuses everything":                  {nil, []string{"A", "good"}, noCredential},
		"a good credential passes":                    {list(a), []string{"A", "good"}, goodA},
		"none is refused":                             {list(a), nil, noCredential},
		"a bad one is refused":                        {list(a), []string{"A", "bad"}, refusedA},
		"a refusal may be wrapped":                    {list(a), []string{"A", "wrapped"}, outcome{401, "wrapped_code", ""}},
		"one that cannot be verified is 503, not 401": {list(a), []string{"A", "error"}, unverified},
		"an authenticator may return a 503 itself":    {list(a), []string{"A", "own 503"}, outcome{503, "own_code", ""}},
		"neither principal nor error is 503":          {list(a), []string{"A", "nothing"}, unverified},
		"neither principal nor error, optional":       {list(usher.Optional(a)), []string{"A", "nothing"}, unverified},
		"a nil Error is an error":                     {list(a), []string{"A", "nil Error"}, unverified},
		"another field carries no credential":         {list(a), []string{"B", "good"}, noCredential},
		"a detector alone":                            {list(da), []string{"A", "good"}, goodA},
		"a detector alone refuses":                    {list(da), []string{"A", "bad"}, refusedA},
		"a detector alone and none":                   {list(da), nil, noCredential},
		"the first of two":                            {list(da, db), []string{"A", "good"}, goodA},
		"the second of two":                           {list(da, db), []string{"B", "good"}, goodB},
		"none of two":                                 {list(da, db), nil, noCredential},
		"both of two are ambiguous":                   {list(da, db), []string{"A", "good", "B", "good"}, twoOfThem},
		"good and bad are ambiguous":                  {list(da, db), []string{"A", "good", "B", "bad"}, twoOfThem},
		"bad and good are ambiguous":                  {list(da, db), []string{"A", "bad", "B", "good"}, twoOfThem},
		"good and error are ambiguous":                {list(da, db), []string{"A", "good", "B", "error"}, twoOfThem},
		"two without detection are ambiguous, too":    {list(a, b), []string{"A", "good", "B", "good"}, twoOfThem},
		"good and bad without detection":              {list(a, b), []string{"A", "good", "B", "bad"}, twoOfThem},
		"the second without detection":                {list(a, b), []string{"B", "good"}, goodB},
		"an error without detection is no absence":    {list(a, b), []string{"A", "error"}, unverified},
		"error and good without detection":            {list(a, b), []string{"A", "error", "B", "good"}, twoOfThem},
		"none without detection":                      {list(a, b), nil, noCredential},
		"a mix of both kinds":                         {list(a, db), []string{"B", "good"}, goodB},
		"a shared carrier goes to the certain one":    {list(sharedA, sharedCertainB), []string{"A", "good", "B", "good"}, goodB},
		"in whatever order":                           {list(sharedCertainB, sharedA), []string{"A", "good", "B", "good"}, goodB},
		"of two certain ones to the first":            {list(sharedCertainB, detector{field: "A", carrier: "shared", certain: true}), []string{"A", "good", "B", "good"}, goodB},
		"without a certain one to the first":          {list(sharedA, sharedB), []string{"A", "good", "B", "good"}, goodA},
		"and then it does not fall back":              {list(sharedA, sharedB), []string{"A", "bad", "B", "good"}, refusedA},
		"a third carrier is ambiguous":                {list(sharedA, sharedCertainB, detector{field: "C"}), []string{"A", "good", "B", "good", "C", "good"}, twoOfThem},
		"optional: none is anonymous":                 {list(usher.Optional(a)), nil, anonymous},
		"optional: good":                              {list(usher.Optional(a)), []string{"A", "good"}, goodA},
		"optional: bad is still refused":              {list(usher.Optional(a)), []string{"A", "bad"}, refusedA},
		"A18: a refusal whose cause is none":          {list(usher.Optional(a)), []string{"A", "503 of none"}, outcome{503, "own_code", ""}},
		"optional: not verified is still 503":         {list(usher.Optional(da)), []string{"A", "error"}, unverified},
		"optional all: none is anonymous":             {list(usher.Optional(da), usher.Optional(db)), nil, anonymous},
		"optional all: both are ambiguous":            {list(usher.Optional(da), usher.Optional(db)), []string{"A", "good", "B", "good"}, twoOfThem},
		"optional all: bad is refused":                {list(usher.Optional(da), usher.Optional(db)), []string{"A", "bad"}, refusedA},
		"optional in part: none is refused":           {list(usher.Optional(da), db), nil, noCredential},
		"optional twice":                              {list(usher.Optional(usher.Optional(da))), nil, anonymous},
		"precedence: the first decides":               {list(usher.Precedence(da, db)), []string{"A", "good", "B", "good"}, goodA},
		"precedence: the second alone":                {list(usher.Precedence(da, db)), []string{"B", "good"}, goodB},
		"precedence: a bad first never falls back":    {list(usher.Precedence(da, db)), []string{"A", "bad", "B", "good"}, refusedA},
		"precedence: an error never falls back":       {list(usher.Precedence(da, db)), []string{"A", "error", "B", "good"}, unverified},
		"precedence: nothing never falls back":        {list(usher.Precedence(da, db)), []string{"A", "nothing", "B", "good"}, unverified},
		"precedence: without detection":               {list(usher.Precedence(a, b)), []string{"A", "bad", "B", "good"}, refusedA},
		"precedence: a bad second is not looked at":   {list(usher.Precedence(da, db)), []string{"A", "good", "B", "bad"}, goodA},
		"precedence: none":                            {list(usher.Precedence(da, db)), nil, noCredential},
		"precedence: of one":                          {list(usher.Precedence(da)), []string{"A", "good"}, goodA},
		"precedence: the certain of a shared":         {list(usher.Precedence(sharedA, sharedCertainB)), []string{"A", "bad", "B", "good"}, goodB},
		"precedence: optional and none":               {list(usher.Optional(usher.Precedence(da, db))), nil, anonymous},
		"precedence: optional and bad":                {list(usher.Optional(usher.Precedence(da, db))), []string{"A", "bad", "B", "good"}, refusedA},
		"precedence: of optional ones":                {list(usher.Precedence(usher.Optional(da), usher.Optional(db))), nil, anonymous},
		"precedence: beside another is ambiguous":     {list(usher.Precedence(da, db), detector{field: "C"}), []string{"B", "good", "C", "good"}, twoOfThem},
		"precedence: beside another, alone":           {list(usher.Precedence(da, db), detector{field: "C"}), []string{"A", "good", "B", "good"}, goodA},
		"A18: two without detection, one nested":      {list(b, usher.Optional(a)), []string{"A", "good", "B", "good"}, twoOfThem},
		"A18: two without detection, both nested":     {list(usher.Optional(b), usher.Precedence(a)), []string{"A", "good", "B", "bad"}, twoOfThem},
		"precedence: carriers of a nested selection":  {list(usher.Precedence(sharedA, detector{field: "C"}), sharedCertainB), []string{"A", "good", "B", "good"}, goodB},
		"precedence: it ranks only its own":           {list(usher.Precedence(sharedA, detector{field: "C"}), sharedCertainB), []string{"A", "good", "B", "good", "C", "good"}, twoOfThem},
		"precedence: in whatever order":               {list(sharedCertainB, usher.Precedence(sharedA, detector{field: "C"})), []string{"A", "good", "B", "good", "C", "good"}, twoOfThem},
		"precedence: of precedence, beside another":   {list(sharedCertainB, usher.Precedence(usher.Precedence(sharedA, detector{field: "C"}))), []string{"A", "good", "B", "good", "C", "good"}, twoOfThem},
		"precedence: one of its own beside another":   {list(usher.Precedence(sharedCertainB, detector{field: "C"}), sharedA), []string{"A", "good", "B", "good", "C", "good"}, goodB},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			equal(t, "outcome", tt.want, outcomeOf(t, usher.Authenticate(tt.authenticators...), get(tt.fields...)))
		})
	}
}

func TestAuthenticatePanicsOnNil(t *testing.T) {
	for name, f := range map[string]func(){
		"Authenticate": func() { usher.Authenticate(field("A"), nil) },
		"Optional":     func() { usher.Optional(nil) },
		"Precedence":   func() { usher.Precedence(nil) },
	} {
		t.Run(name, func(t *testing.T) { mustPanic(t, "usher: nil Authenticator", f) })
	}
}

// A counted authenticator counts how often each of its methods is called.
type counted struct {
	detector
	detected, verified *int
}

func (c counted) Detect(r *http.Request) (string, bool) { *c.detected++; return c.detector.Detect(r) }

func (c counted) Authenticate(r *http.Request) (*usher.Principal, error) {
	*c.verified++
	return c.detector.Authenticate(r)
}

// A countedBlind authenticator is not a Detector.
type countedBlind struct {
	field
	verified *int
}

func (c countedBlind) Authenticate(r *http.Request) (*usher.Principal, error) {
	*c.verified++
	return c.field.Authenticate(r)
}

func TestNothingIsDetectedOrVerifiedTwice(t *testing.T) {
	type calls struct{ detected, verified int }
	tests := map[string]struct {
		build  func(a, b, blind usher.Authenticator) usher.Middleware
		fields []string
		want   [3]calls // of a, b and blind
	}{
		"alone":                 {func(a, _, _ usher.Authenticator) usher.Middleware { return usher.Authenticate(a) }, []string{"A", "good"}, [3]calls{{0, 1}}},
		"optional":              {func(a, _, _ usher.Authenticator) usher.Middleware { return usher.Authenticate(usher.Optional(a)) }, []string{"A", "good"}, [3]calls{{0, 1}}},
		"one of two":            {func(a, b, _ usher.Authenticator) usher.Middleware { return usher.Authenticate(a, b) }, []string{"B", "good"}, [3]calls{{1, 0}, {1, 1}}},
		"two in one request":    {func(a, b, _ usher.Authenticator) usher.Middleware { return usher.Authenticate(a, b) }, []string{"A", "good", "B", "good"}, [3]calls{{1, 0}, {1, 0}}},
		"none of three":         {func(a, b, c usher.Authenticator) usher.Middleware { return usher.Authenticate(a, b, c) }, nil, [3]calls{{1, 0}, {1, 0}, {0, 1}}},
		"without detection":     {func(a, _, c usher.Authenticator) usher.Middleware { return usher.Authenticate(a, c) }, []string{"C", "good"}, [3]calls{{1, 0}, {}, {0, 1}}},
		"refused, no detection": {func(a, _, c usher.Authenticator) usher.Middleware { return usher.Authenticate(a, c) }, []string{"C", "bad"}, [3]calls{{1, 0}, {}, {0, 1}}},
		"nested": {func(a, b, c usher.Authenticator) usher.Middleware {
			return usher.Authenticate(usher.Precedence(usher.Optional(a), b), usher.Optional(c))
		}, []string{"B", "good"}, [3]calls{{1, 0}, {1, 1}, {0, 1}}},
		"nested, no detection": {func(a, b, c usher.Authenticator) usher.Middleware {
			return usher.Authenticate(usher.Precedence(a, usher.Precedence(b, c)))
		}, []string{"C", "good"}, [3]calls{{1, 0}, {1, 0}, {0, 1}}},
		"a precedence is decided": {func(a, _, c usher.Authenticator) usher.Middleware { return usher.Authenticate(usher.Precedence(a, c)) }, []string{"A", "good", "C", "good"}, [3]calls{{1, 1}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got [3]calls
			a := counted{detector{field: "A"}, &got[0].detected, &got[0].verified}
			b := counted{detector{field: "B"}, &got[1].detected, &got[1].verified}
			serve(tt.build(a, b, countedBlind{"C", &got[2].verified}).Wrap(http.NotFoundHandler()), get(tt.fields...))
			if got != tt.want {
				t.Errorf("calls %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestTheCauseOfA503IsNotSent(t *testing.T) {
	w := serve(usher.Authenticate(field("A")).Wrap(http.NotFoundHandler()), get("A", "error"))
	if strings.Contains(w.Body.String(), "store") {
		t.Errorf("body %s", w.Body)
	}
	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q", got)
	}
}

func TestChallenges(t *testing.T) {
	bearer, basic := `Bearer realm="notes"`, `Basic realm="notes"`
	const metadata = `bearer Realm="n" , resource_metadata="https://notes.example/m"`
	m := detector{field: "M", challenge: metadata}
	a := detector{field: "A", challenge: bearer}
	b := detector{field: "B", challenge: basic}
	c := detector{field: "C", challenge: bearer}
	tests := map[string]struct {
		m      usher.Middleware
		fields []string
		want   []string
	}{
		"one":                                    {usher.Authenticate(a), nil, []string{bearer}},
		"each on a line of its own":              {usher.Authenticate(a, b), nil, []string{bearer, basic}},
		"the same only once":                     {usher.Authenticate(a, b, c), nil, []string{bearer, basic}},
		"of two with metadata, only once":        {usher.Authenticate(m, b, m), nil, []string{metadata, basic}},
		"none on 403":                            {usher.Authenticate(a), []string{"A", "own 403"}, nil},
		"of a precedence, too":                   {usher.Authenticate(usher.Precedence(a, b), c), nil, []string{bearer, basic}},
		"of optional ones, too":                  {usher.Authenticate(usher.Optional(usher.Precedence(b, a)), c), nil, []string{basic, bearer}},
		"of two credentials":                     {usher.Authenticate(a, b), []string{"A", "good", "B", "good"}, []string{bearer, basic}},
		"without known challenges, Bearer":       {usher.Authenticate(field("A")), nil, []string{"Bearer"}},
		"with metadata, first":                   {usher.Authenticate(b, a, m), nil, []string{metadata, basic, bearer}},
		"with metadata in a precedence":          {usher.Authenticate(usher.Optional(usher.Precedence(b, m)), a), nil, []string{metadata, basic, bearer}},
		"metadata of another scheme":             {usher.Authenticate(b, detector{field: "C", challenge: "x" + metadata}), nil, []string{basic, "x" + metadata}},
		"metadata in the text of a realm":        {usher.Authenticate(b, detector{field: "C", challenge: `Bearer realm="resource_metadata=\"x\""`}), nil, []string{basic, `Bearer realm="resource_metadata=\"x\""`}},
		"a refusal without a challenge gets all": {usher.Authenticate(b, a), []string{"A", "bad"}, []string{basic, bearer}},
		"a refusal keeps its own challenge":      {usher.Authenticate(a), []string{"A", "own"}, []string{"Own"}},
		"none on 503":                            {usher.Authenticate(a), []string{"A", "error"}, nil},
		"without authenticators, Bearer":         {usher.Authenticate(), nil, []string{"Bearer"}},
		"an anonymous caller of a closed route receives them": {
			usher.Chain(usher.Authenticate(usher.Optional(b)), usher.Require(usher.Requirement{})), nil, []string{basic},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := tt.m.Wrap(http.NotFoundHandler())
			first := serve(h, get(tt.fields...))
			equal(t, "challenges", tt.want, first.Header().Values("WWW-Authenticate"))
			// An outer middleware may change the header that it finds.
			for i := range first.Header()["Www-Authenticate"] {
				first.Header()["Www-Authenticate"][i] = "changed"
			}
			equal(t, "challenges of the next", tt.want, serve(h, get(tt.fields...)).Header().Values("WWW-Authenticate"))
		})
	}
}

// The challenge to a caller who lacks a scope has the parameters of the authenticator that
// accepted the caller, and no others (RFC 6750, section 3.1; RFC 9728, section 5.1).
func TestRequireRepeatsTheChallengeOfTheAuthenticator(t *testing.T) {
	const metadata = `resource_metadata="https://notes.example/m"`
	named := func(f field, challenge string) detector { return detector{field: f, challenge: challenge} }
	keys, tokens := named("A", `Bearer realm="keys"`), named("B", `Bearer realm="notes", scope="x s", `+metadata)
	const (
		plain   = `Bearer error="insufficient_scope", scope="s"`
		ofKeys  = `Bearer realm="keys", error="insufficient_scope", scope="s"`
		ofToken = `Bearer realm="notes", error="insufficient_scope", scope="x s", ` + metadata
	)
	tests := map[string]struct {
		m    usher.Middleware
		by   field
		want string
	}{
		"alone":                          {usher.Authenticate(tokens), "B", ofToken},
		"the first of two":               {usher.Authenticate(keys, tokens), "A", ofKeys},
		"the second of two":              {usher.Authenticate(keys, tokens), "B", ofToken},
		"in a precedence":                {usher.Authenticate(usher.Precedence(keys, tokens)), "B", ofToken},
		"an optional one":                {usher.Authenticate(usher.Optional(tokens)), "B", ofToken},
		"in a precedence beside another": {usher.Authenticate(usher.Precedence(keys, usher.Optional(tokens)), named("C", "Bearer")), "B", ofToken},
		"inside another":                 {usher.Chain(usher.Authenticate(tokens), usher.Authenticate(keys)), "AB", ofKeys},
		"inside another, plain":          {usher.Chain(usher.Authenticate(tokens), usher.Authenticate(field("A"))), "AB", plain},
		"without a challenge":            {usher.Authenticate(field("A"), tokens), "A", plain},
		"of another scheme":              {usher.Authenticate(named("A", `ApiKey realm="keys"`)), "A", plain},
		"without parameters":             {usher.Authenticate(named("A", "Bearer")), "A", plain},
		"in any case, with blanks":       {usher.Authenticate(named("A", "bEARER  Realm = \"keys\"\t, ,error=x ,error_description=\"y\", Error_URI=z")), "A", ofKeys},
		"with a token as value":          {usher.Authenticate(named("A", "Bearer realm=keys")), "A", ofKeys},
		"a tab after a token as value":   {usher.Authenticate(named("A", "Bearer realm=keys\t,error=x")), "A", ofKeys},
		"with other parameters":          {usher.Authenticate(named("A", `Bearer max_age="5"`)), "A", plain + `, max_age="5"`},
		"with quotes in a value":         {usher.Authenticate(named("A", `Bearer realm="a\"b\\c"`)), "A", `Bearer realm="a\"b\\c", error="insufficient_scope", scope="s"`},
		"a list":                         {usher.Authenticate(named("A", `Basic realm="a", Bearer realm="b"`)), "A", plain},
		"a list that begins with Bearer": {usher.Authenticate(named("A", `Bearer realm="a", Basic realm="b"`)), "A", plain},
		"a token68":                      {usher.Authenticate(named("A", `Bearer eA==`)), "A", plain},
		"an open quote":                  {usher.Authenticate(named("A", `Bearer realm="a`)), "A", plain},
		"no comma between parameters":    {usher.Authenticate(named("A", `Bearer realm="a" b="c"`)), "A", plain},
		"a tab after the scheme":         {usher.Authenticate(named("A", "Bearer\trealm=\"a\"")), "A", plain},
		"no name":                        {usher.Authenticate(named("A", `Bearer ="a"`)), "A", plain},
		"no blank after the scheme":      {usher.Authenticate(named("A", `Bearer,realm="a"`)), "A", plain},
		"no value":                       {usher.Authenticate(named("A", `Bearer realm=, b=c`)), "A", plain},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := get()
			for f := range strings.SplitSeq(string(tt.by), "") {
				r.Header.Set(f, "good")
			}
			m := usher.Chain(tt.m, usher.Require(usher.Requirement{Scopes: []string{"s"}}))
			for _, run := range ways {
				w := serve(run(m, http.NotFoundHandler()), r)
				equal(t, "status", http.StatusForbidden, w.Code)
				equal(t, "challenge", []string{tt.want}, w.Header().Values("WWW-Authenticate"))
			}
		})
	}
}

// An anonymous caller learns which scopes the route needs before asking for a token.
func TestRequireNamesItsScopesToAnAnonymousCaller(t *testing.T) {
	const metadata = `Bearer resource_metadata="https://notes.example/m"`
	tokens, keys := detector{field: "A", challenge: metadata}, detector{field: "B", challenge: `ApiKey realm="keys"`}
	anonymous := usher.Authenticate(usher.Optional(usher.Precedence(keys, tokens)))
	scopes := func(list ...string) usher.Requirement { return usher.Requirement{Scopes: list} }
	webhook := usher.Requirement{Kinds: []usher.Kind{usher.KindWebhook}}
	both := usher.AnyOf(webhook, scopes("a"), scopes("b"))
	both.Scopes = []string{"s"}
	for name, tt := range map[string]struct {
		m    usher.Middleware
		want []string
	}{
		"one":  {usher.Require(scopes("s", "t")), []string{`Bearer scope="s t", resource_metadata="https://notes.example/m"`, `ApiKey realm="keys"`}},
		"none": {usher.Require(webhook), []string{metadata, `ApiKey realm="keys"`}},
		"alternatives under scopes": {
			usher.Require(both), []string{`Bearer scope="s a", resource_metadata="https://notes.example/m"`, `ApiKey realm="keys"`},
		},
		"alternatives": {usher.Require(usher.AnyOf(webhook, scopes("a"), scopes("b"))), []string{`Bearer scope="a", resource_metadata="https://notes.example/m"`, `ApiKey realm="keys"`}},
	} {
		t.Run(name, func(t *testing.T) {
			h := usher.Chain(anonymous, tt.m).Wrap(http.NotFoundHandler())
			for range 2 {
				w := serve(h, get())
				equal(t, "status", http.StatusUnauthorized, w.Code)
				equal(t, "challenges", tt.want, w.Header().Values("WWW-Authenticate"))
			}
		})
	}
	own := detector{field: "A", challenge: `Bearer scope="x s"`}
	w := serve(usher.Chain(usher.Authenticate(usher.Optional(own)), usher.Require(scopes("s", "t"))).Wrap(http.NotFoundHandler()), get())
	equal(t, "beside its own", []string{`Bearer scope="x s t"`}, w.Header().Values("WWW-Authenticate"))
	another := detector{field: "C", challenge: `Bearer realm="c"`}
	w = serve(usher.Chain(usher.Authenticate(usher.Optional(usher.Precedence(own, another))), usher.Require(scopes("s"))).Wrap(http.NotFoundHandler()), get())
	equal(t, "the first of two", []string{`Bearer scope="x s"`, `Bearer realm="c"`}, w.Header().Values("WWW-Authenticate"))
	w = serve(usher.Chain(usher.Authenticate(usher.Optional(keys)), usher.Require(scopes("s"))).Wrap(http.NotFoundHandler()), get())
	equal(t, "of another scheme", []string{`ApiKey realm="keys"`}, w.Header().Values("WWW-Authenticate"))
}

func TestChallengeOfSeveralIsOneList(t *testing.T) {
	d := usher.Precedence(detector{field: "A", challenge: "Bearer"}, detector{field: "B", challenge: "Basic"}).(usher.Detector)
	equal(t, "challenge", "Bearer, Basic", d.Challenge())
}

func TestAnonymousHasNoPrincipalOfAnOuterAuthenticate(t *testing.T) {
	m := usher.Chain(usher.Authenticate(field("A")), usher.Authenticate(usher.Optional(field("B"))))
	equal(t, "outcome", outcome{200, "", "anonymous"}, outcomeOf(t, m, get("A", "good")))
}

func TestARefusalLeavesNoPrincipal(t *testing.T) {
	tracked := usher.Track(get("A", "bad"))
	serve(usher.Authenticate(field("A")).Wrap(http.NotFoundHandler()), tracked)
	if p, ok := usher.PrincipalFrom(tracked.Context()); ok {
		t.Errorf("principal %v", p)
	}
}

func TestAuthenticateThroughAServer(t *testing.T) {
	a := newRecorder("A")
	server := httptest.NewServer(usher.Authenticate(a).Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := usher.PrincipalFrom(r.Context())
		_, _ = w.Write([]byte(p.ID))
	})))
	defer server.Close()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			credential, want := "good", http.StatusOK
			if i%2 == 1 {
				credential, want = "bad", http.StatusUnauthorized
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("A", credential)
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: status %d", credential, resp.StatusCode)
			}
		})
	}
	wg.Wait()
	server.Close()
	equal(t, "uses", slices.Repeat([]string{"A good 200"}, 8), a.uses())
}
