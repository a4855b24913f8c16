package envelope_test

import "github.com/usher-go/usher/envelope"

var shapes = []struct {
	name  string
	shape envelope.Shape
}{
	{"standard", envelope.Standard()},
	{"data", envelope.Data()},
	{"typed", envelope.Typed()},
	{"detail", envelope.Detail()},
	{"problem", envelope.Problem("https://api.example.com/problems/")},
	{"bare", envelope.Bare()},
}

func must(c envelope.Config) *envelope.Envelope {
	e, err := envelope.New(c)
	if err != nil {
		panic(err)
	}
	return e
}
