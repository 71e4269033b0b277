from voice_server.core.transcript import Transcript


def same(position):
    return position


def test_words_decide_exactly_what_was_heard():
    transcript = Transcript()
    transcript.begin("One two three.", 0, 0)
    transcript.add_words([(3, 1000), (7, 2000), (13, 3000)])
    transcript.add_samples(3200)
    heard = transcript.heard(2500, "One two three. Four", same)
    assert (heard.spoken, heard.remaining, heard.is_exact) == ("One two", " three. Four", True)


def test_a_segment_heard_to_its_end_counts_whole():
    transcript = Transcript()
    transcript.begin("One two.", 0, 0)
    transcript.add_samples(2000)
    transcript.end()
    transcript.begin("Three.", 9, 2000)
    transcript.add_words([(5, 900)])
    heard = transcript.heard(2100, "One two. Three.", same)
    assert (heard.spoken, heard.is_exact) == ("One two.", True)


def test_without_word_timings_the_proportion_is_cut_at_a_word():
    transcript = Transcript()
    transcript.begin("aaa bbb ccc ddd", 0, 0)
    transcript.add_samples(15_000)
    transcript.end()
    heard = transcript.heard(8_000, "aaa bbb ccc ddd", same)
    assert (heard.spoken, heard.is_exact) == ("aaa bbb", False)


def test_nothing_heard_is_nothing_spoken():
    heard = Transcript().heard(0, "Hello there", same)
    assert (heard.spoken, heard.remaining, heard.is_exact) == ("", "Hello there", True)
