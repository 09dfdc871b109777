package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/itchyny/gojq"

	"github.com/weirhq/weir/wasm/transform"
)

// queryTime bounds what a jq expression may take for one record, at most twice of
// it: a query is the user's program, and some programs don't end.
const queryTime = time.Second

// queryTimer lends the contexts that end a query. One serves all records for a
// while, since to make one for each would cost as much as a short query. The zero
// value is ready.
type queryTimer struct {
	ctx  context.Context
	end  context.CancelFunc
	made time.Time
}

func (t *queryTimer) context() context.Context {
	if now := time.Now(); t.ctx == nil || now.Sub(t.made) > queryTime {
		t.stop()
		t.made = now
		t.ctx, t.end = context.WithTimeout(context.Background(), 2*queryTime)
	}
	return t.ctx
}

func (t *queryTimer) stop() {
	if t.ctx != nil {
		t.end()
		t.ctx = nil
	}
}

// query makes partition keys of a JSON record: a jq expression that yields
// one object of names and values.
type query struct {
	code  *gojq.Code
	names []string
	plain *paths // nil when some value is not made of paths
}

// compileQuery reads a MetadataExtractionQuery. The names are those of the
// object that the expression constructs.
func compileQuery(source string) (*query, error) {
	parsed, err := gojq.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("jq expression %q: %w", source, err)
	}
	if parsed.Term == nil || parsed.Term.Type != gojq.TermTypeObject || parsed.Term.Object == nil {
		return nil, fmt.Errorf("jq expression %q must be an object, {name: .path, …}", source)
	}
	q := &query{}
	for _, kv := range parsed.Term.Object.KeyVals {
		name := kv.Key
		if kv.KeyString != nil {
			name = kv.KeyString.Str
		}
		if name == "" || kv.KeyQuery != nil {
			return nil, fmt.Errorf("jq expression %q: each name must be written out", source)
		}
		if name[0] == '$' || name[0] == '.' {
			name = name[1:]
		}
		q.names = append(q.names, name)
	}
	if len(q.names) == 0 {
		return nil, fmt.Errorf("jq expression %q has no names", source)
	}
	q.plain = plainPaths(parsed, q.names)
	if q.code, err = gojq.Compile(parsed); err != nil {
		return nil, fmt.Errorf("jq expression %q: %w", source, err)
	}
	return q, nil
}

// matchers are jq's functions whose first argument is a regular expression. Of split that is so of two.
var matchers = []string{"test", "match", "capture", "scan", "split", "splits", "sub", "gsub"}

// checkPatterns returns what is wrong with the regular expressions that are written out. Those of jq 1.6
// look ahead and behind, which Go's don't: without a check each record would fail.
func checkPatterns(source string) error {
	q, err := gojq.Parse(source)
	if err != nil {
		return err
	}
	var check func(v reflect.Value) error
	check = func(v reflect.Value) error {
		switch v.Kind() {
		case reflect.Pointer:
			if v.IsNil() {
				return nil
			}
			if f, ok := v.Interface().(*gojq.Func); ok && slices.Contains(matchers, f.Name) && len(f.Args) > 0 && (f.Name != "split" || len(f.Args) == 2) {
				if err := tryPattern(f.Args[0].Term); err != nil {
					return err
				}
			}
			return check(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				if err := check(v.Field(i)); err != nil {
					return err
				}
			}
		case reflect.Slice:
			for i := range v.Len() {
				if err := check(v.Index(i)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return check(reflect.ValueOf(q))
}

// tryPattern has gojq compile a pattern, when it is a text.
func tryPattern(t *gojq.Term) error {
	if t == nil || t.Str == nil || len(t.Str.Queries) > 0 || len(t.SuffixList) > 0 {
		return nil
	}
	q, err := gojq.Parse("test($pattern)")
	if err != nil {
		return err
	}
	code, err := gojq.Compile(q, gojq.WithVariables([]string{"$pattern"}))
	if err != nil {
		return err
	}
	out, _ := code.Run("", t.Str.Str).Next()
	if err, failed := out.(error); failed {
		return fmt.Errorf("%w (regular expressions are RE2's: no look-around, no back-references)", err)
	}
	return nil
}

// run runs the query over one record and returns the values in the order
// of the names. They are appended to dst.
func (q *query) run(ctx context.Context, dst []string, data []byte) ([]string, error) {
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("record is not JSON: %w", err)
	}
	out, ok := q.code.RunWithContext(ctx, doc).Next()
	if !ok {
		return nil, errors.New("jq expression gives no result")
	}
	if err, failed := out.(error); failed {
		return nil, err
	}
	object, ok := out.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("jq expression gives %T, not an object", out)
	}
	for _, name := range q.names {
		v, err := keyText(object[name])
		if err != nil {
			return nil, fmt.Errorf("partition key %q: %w", name, err)
		}
		dst = append(dst, v)
	}
	return dst, nil
}

// keyText is a partition key's value as it stands in an object's name.
func keyText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", errors.New("partition key value should not be null or empty")
	case string:
		if v == "" {
			return "", errors.New("partition key value should not be null or empty")
		}
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case *big.Int:
		return v.String(), nil
	}
	return "", fmt.Errorf("partition key value is %T; it must be a text, number or boolean", v)
}

// queryStage sets the partition keys that come from a query.
type queryStage struct {
	query  *query
	skip   int // items whose partition is known already
	next   stage
	values []string
	time   queryTimer
	plain  *pathReader       // of a plain query
	seen   map[string]string // values by their bytes, so that each is made once
}

// maxSeen bounds how many values a queryStage remembers, and maxSeenBytes each: the
// names of objects are short, and what is longer hardly comes twice.
const (
	maxSeen      = 4096
	maxSeenBytes = 256
)

// read gives the values of a record, by the short way when there is one.
func (s *queryStage) read(data []byte) ([]string, error) {
	if p := s.query.plain; p != nil {
		if s.plain == nil {
			s.plain, s.seen = newPathReader(p, &s.time), map[string]string{}
		}
		if values, ok := s.plain.read(data); ok {
			for _, v := range values {
				s.values = append(s.values, s.known(v))
			}
			return s.values, nil
		}
	}
	return s.query.run(s.time.context(), s.values, data)
}

func (s *queryStage) known(v []byte) string {
	if text, ok := s.seen[string(v)]; ok {
		return text
	}
	text := string(v)
	if len(s.seen) < maxSeen && len(text) <= maxSeenBytes {
		s.seen[text] = text
	}
	return text
}

func (s *queryStage) flush() error {
	s.time.stop()
	return s.next.flush()
}

func (s *queryStage) push(it *item) error {
	if s.skip > 0 {
		s.skip--
		return s.next.push(it)
	}
	if it.fail != nil {
		return s.next.push(it)
	}
	s.values = append(s.values[:0], it.values...)
	values, err := s.read(it.data)
	if err != nil {
		it.fail = &failure{kind: processingFailed, code: "DynamicPartitioning.MetadataExtractionFailed", message: err.Error(), attempts: 1}
		return s.next.push(it)
	}
	s.values, it.values = values, values
	return s.next.push(it)
}

// moduleValues reads the partition keys that a module gave a record: lines of
// name=value, or the value alone when the prefix has one name.
func moduleValues(dst []string, names []string, key []byte) ([]string, error) {
	if len(key) == 0 {
		return nil, errors.New("the module gave no partition key")
	}
	given := map[string]string{}
	transform.EachPartitionKey(key, func(name, value []byte) bool {
		given[string(name)] = string(value)
		return true
	})
	for _, name := range names {
		v := given[name]
		if v == "" && len(names) == 1 && len(given) == 1 {
			v = given["key"] // a value without a name
		}
		if v == "" {
			return nil, fmt.Errorf("the module gave no partition key %q", name)
		}
		dst = append(dst, v)
	}
	return dst, nil
}
