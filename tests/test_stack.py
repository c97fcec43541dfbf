import sys
import types
from importlib import metadata

import pytest

from mmrkd.stack import FIX, OPTIONAL, REQUIRED, check_stack, installed_version


@pytest.fixture
def install(monkeypatch):
    """Puts a package of some version into ``sys.modules``."""

    def install(version):
        module = types.ModuleType('mmrkd_fake_package')
        module.__version__ = version
        monkeypatch.setitem(sys.modules, 'mmrkd_fake_package', module)

    return install


def test_the_installed_stack_fits():
    check_stack()
    assert {'torch', 'mmengine', 'mmcv'} <= set(REQUIRED)


@pytest.mark.parametrize('version', ['2.0.0', '2.0', '2.0.1', '2.11.0+cu130', '2.1.0rc1', '2.99.99'])
def test_versions_that_fit(install, version):
    install(version)
    check_stack({'mmrkd_fake_package': ('2.0.0', '3.0.0')})


@pytest.mark.parametrize('version', ['1.13.1', '1.99', '3.0.0', '3.0', '3.1.0+cpu'])
def test_versions_that_do_not_fit(install, version):
    install(version)
    with pytest.raises(ImportError) as error:
        check_stack({'mmrkd_fake_package': ('2.0.0', '3.0.0')})
    message = str(error.value)
    assert f'mmrkd needs mmrkd_fake_package>=2.0.0,<3.0.0, but found mmrkd_fake_package {version}' in message
    assert FIX in message


def test_the_second_number_counts(install):
    install('0.9.1')
    with pytest.raises(ImportError, match='found mmrkd_fake_package 0.9.1'):
        check_stack({'mmrkd_fake_package': ('0.10.0', '1.0.0')})
    install('0.10.7')
    check_stack({'mmrkd_fake_package': ('0.10.0', '1.0.0')})


def test_a_package_that_is_not_there_is_named_with_the_fix():
    with pytest.raises(ImportError) as error:
        check_stack({'mmrkd_no_such_package': ('2.0', '3.0')})
    message = str(error.value)
    assert 'mmrkd needs mmrkd_no_such_package>=2.0,<3.0, but importing it failed' in message
    assert 'No module named' in message
    assert 'pip install' in message


def test_the_fix_pins_two_whole_stacks():
    for package in ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'mmdet', 'mmpretrain'):
        assert f'{package}==' in FIX


class TestOptionalLibraries:
    def versions(self, monkeypatch, **installed):
        def version(name):
            if name in installed:
                return installed[name]
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, 'version', version)

    def test_both_are_looked_at_and_neither_is_imported(self, monkeypatch):
        assert set(OPTIONAL) == {'mmdet', 'mmpretrain'}
        monkeypatch.setattr('importlib.import_module', lambda name: pytest.fail(f'{name} was imported'))
        self.versions(monkeypatch, **{'onedl-mmdetection': '3.5.1', 'mmpretrain': '1.2.0'})
        assert installed_version('mmdet') == '3.5.1' and installed_version('mmpretrain') == '1.2.0'
        check_stack({})

    def test_one_may_be_absent(self, monkeypatch):
        self.versions(monkeypatch, mmpretrain='1.2.0')
        check_stack({})
        self.versions(monkeypatch)
        check_stack({})

    @pytest.mark.parametrize(
        'distribution, name, version',
        [
            ('mmdet', 'mmdet', '2.28.2'),
            ('onedl-mmdetection', 'mmdet', '4.0.0'),
            ('mmpretrain', 'mmpretrain', '1.0.0rc8'),
        ],
    )
    def test_one_that_is_there_must_fit(self, monkeypatch, distribution, name, version):
        self.versions(monkeypatch, **{distribution: version})
        with pytest.raises(ImportError, match=f'mmrkd needs {name}>=.*, but found {name} {version}'):
            check_stack({})
